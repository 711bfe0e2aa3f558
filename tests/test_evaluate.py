"""`ganrun evaluate`: equals the scores of training, reports provenance, and refuses invalid requests in one line."""

import json
import warnings

import pytest
import torch

from ganrun import evaluate
from ganrun.errors import UserError
from tests.conftest import config_of, write_data
from tests.models.test_extractors import Brightness
from tests.ranks import run_folder, run_ranks

SAMPLES = 20


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    """A fast TorchScript extractor."""
    path = tmp_path_factory.mktemp("extractor") / "brightness.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Brightness()), path)
    return path


@pytest.fixture
def config(values, extractor):
    values["evaluate"] = {
        "every_images": 60,
        "samples": SAMPLES,
        "extractor": str(extractor),
        "metrics": ["kid", "precision", "coverage", "classes_hit"],
    }
    return config_of(values, train__total_images=60)


@pytest.fixture
def run(config, tmp_path):
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def scores(run, capsys, *options):
    assert evaluate.main([str(run), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_door_gives_the_scores_of_the_training_and_says_where_they_come_from(run, config, extractor, capsys):
    assert evaluate.main([str(run), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err.count("scoring up to 40 images") == 1
    (file,) = (run / "metrics").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (end,) = [line for line in lines if line["images"] == 60 and "kid" in line]
    for metric in ("frechet_distance", "kid", "kid_deviation", "precision", "coverage", "classes_hit"):
        assert found[metric] == pytest.approx(end[metric], rel=1e-9), metric
    (manifest,) = run.glob("checkpoints/*/manifest.json")
    (told,) = json.loads(manifest.read_text())["scores"]
    assert told["metrics"]["kid"] == end["kid"]
    assert {name: found[name] for name in ("images", "samples", "seed", "extractor", "resize")} == {
        "images": 60, "samples": SAMPLES, "seed": 0, "extractor": "brightness.pt", "resize": "its own"
    }  # fmt: skip
    assert len(found["extractor_sha256"]) == 64
    assert "fid" not in found


def test_all_that_can_be_had_is_the_default(run, capsys):
    found = scores(run, capsys)
    assert {"kid", "precision", "recall", "density", "coverage", "classes_hit"} <= found.keys()
    assert "inception_score" not in found
    assert "class_frechet_distance" not in found


def test_metrics_samples_and_data_of_choice(run, tmp_path, capsys):
    usual = scores(run, capsys, "--metrics", "fid,recall")
    assert {"frechet_distance", "recall"} <= usual.keys()
    assert not {"kid", "precision", "density"} & usual.keys()
    other = write_data(tmp_path / "other", sizes=(40,))
    more = scores(run, capsys, "--metrics", "frechet_distance", "--samples", "30", "--data", str(other))
    assert more["samples"] == 30
    assert more["frechet_distance"] != usual["frechet_distance"]
    again = scores(run, capsys, "--metrics", "fid", "--seed", "5")
    assert again["frechet_distance"] != usual["frechet_distance"]


def test_a_checkpoint_is_scored_like_its_run(run, capsys):
    (checkpoint,) = (run / "checkpoints").iterdir()
    caches = list((run.parent / ".statistics").iterdir())
    assert scores(checkpoint, capsys, "--metrics", "kid,precision,coverage,classes_hit") == scores(
        run, capsys, "--metrics", "kid,precision,coverage,classes_hit"
    )
    assert list((run.parent / ".statistics").iterdir()) == caches  # what training saw of real images


def test_words_for_people(run, capsys):
    assert evaluate.main([str(run), "--metrics", "recall"]) == 0
    output = capsys.readouterr().out
    assert f"Fréchet distance (brightness.pt, n={SAMPLES})" in output
    assert "recall" in output
    assert "checkpoint at 60 images" in output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--metrics", "inception_score"], "brightness.pt has no logits"),
        (["--metrics", "class_frechet_distance"], "the run is unconditional"),
        (["--data", "{tmp}/nowhere"], "no shards and no index"),
        (["--data", "{tmp}/large"], "images have 1 channels and 32 pixels a side"),
        (["--extractor", "nothing.pt"], "cannot read nothing.pt"),
        (["--extractor", "effnet"], "efficientnet-lite0, inception-v3-compat"),
        (["--classifier-accuracy"], "needs a conditional run"),
    ],
)
def test_a_wrong_request_is_one_clear_line(run, tmp_path, capsys, options, reason):
    write_data(tmp_path / "large", sizes=(20,), image_size=32)
    capsys.readouterr()
    assert evaluate.main([str(run), *(option.format(tmp=tmp_path) for option in options)]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_metric_that_cannot_be_had_ends_the_training_at_its_first_score(config, values, tmp_path):
    values["evaluate"]["metrics"] = ["inception_score"]
    with pytest.raises(UserError, match=r"metrics: inception_score cannot be computed: .*has no logits"):
        run_ranks(config_of(values), 1, tmp_path / "meeting")


def test_a_metric_that_is_none_is_refused_at_once(capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["runs/none", "--metrics", "fidd"])
    assert ended.value.code == 2
    assert "unknown metric 'fidd'" in capsys.readouterr().err


def test_no_run_is_one_clear_line(tmp_path, capsys):
    assert evaluate.main([str(tmp_path)]) == 2
    assert "neither a run with a checkpoint nor a checkpoint" in capsys.readouterr().err


def test_two_workers_score_in_training_as_one_does(config, values, tmp_path):
    both = []
    for workers in (1, 2):
        config = config_of(values, run__name=f"by{workers}", train__total_images=24, train__tick_images=12)
        run_ranks(config, workers, tmp_path / f"meeting{workers}")
        (file,) = (run_folder(config) / "metrics").iterdir()
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        both.append([{k: v for k, v in line.items() if k not in ("time", "images")} for line in lines if "kid" in line])
    alone, together = both
    assert len(alone) == 2
    for one, other in zip(alone, together, strict=True):
        assert one == {name: pytest.approx(value, rel=1e-6) for name, value in other.items()}
