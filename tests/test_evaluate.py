"""`ganrun evaluate`: equals the scores of training, reports provenance, and refuses invalid requests in one line."""

import json

import numpy as np
import pytest
import webdataset
from PIL import Image

from ganrun import evaluate, prepare, sample
from ganrun.errors import UserError
from tests.conditional import conditional
from tests.conftest import config_of, write_data
from tests.ranks import run_folder, run_ranks

SAMPLES = 20


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
    assert found["kid_deviation"] is end["kid_deviation"] is None  # One subset: all samples.
    for metric in ("frechet_distance", "kid", "precision", "coverage", "classes_hit"):
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
        (["--metrics", "class_frechet_distance"], "have no labels"),
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


def test_a_metric_that_is_none_is_refused(run, capsys):
    assert evaluate.main([str(run), "--metrics", "kid,fidd"]) == 2
    assert "--metrics: unknown metric 'fidd'; use fid, kid, precision" in capsys.readouterr().err


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
        left_out = ("time", "images", "kid_deviation")
        both.append([{k: v for k, v in line.items() if k not in left_out} for line in lines if "kid" in line])
    alone, together = both
    assert len(alone) == 2
    for one, other in zip(alone, together, strict=True):
        assert one == {name: pytest.approx(value, rel=1e-6) for name, value in other.items()}


# Pictures in a folder.


@pytest.mark.parametrize("label", [None, 2])
def test_a_folder_that_sample_wrote_scores_exactly_as_the_run(values, extractor, tmp_path, capsys, label):
    values["evaluate"] = {"every_images": 0, "extractor": str(extractor)}
    config = config_of(conditional(values), train__total_images=60, run__name="labelled")
    run_ranks(config, 1, tmp_path / "meeting")
    run, options = run_folder(config), ["--metrics", "kid,precision,coverage", "--seed", "3"]
    pictures = str(tmp_path / "pictures")
    chosen = [] if label is None else ["--label", str(label)]
    assert sample.main([str(run), "--out", pictures, "--count", "70", "--seed", "3", *chosen]) == 0
    capsys.readouterr()
    of_folder = scores(run, capsys, "--images", pictures, *options)
    assert of_folder["images"] is None
    assert of_folder["samples"] == 70
    if label is None:
        of_run = scores(run, capsys, "--samples", "70", *options)
        assert {**of_folder, "images": 60} == of_run
        data = str(values["data"]["shards"])
        assert (
            evaluate.main(["--images", pictures, "--data", data, "--extractor", str(extractor), "--json", *options])
            == 0
        )
        assert json.loads(capsys.readouterr().out) == of_folder


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--images", "{tmp}/none", "--data", "{data}"], "none: no such folder"),
        (["--images", "{tmp}/empty", "--data", "{data}"], "0 pictures, but a score needs at least 2"),
        (["--images", "{tmp}/large"], "name the real images to compare with: --data"),
        (["--images", "{tmp}/large", "--data", "{data}"], "a.png has 20x20 pixels, but the data 16x16"),
        (["--images", "{tmp}/broken", "--data", "{data}"], "a.png cannot be read as a picture"),
        (
            ["--images", "{tmp}/same", "--data", "{data}", "--metrics", "class_frechet_distance"],
            "the images have no labels",
        ),
        ([], "nothing to score: name a run, a checkpoint, or --images"),
    ],
)
def test_a_folder_that_cannot_be_scored_is_one_clear_line(extractor, data_folder, tmp_path, capsys, arguments, reason):
    for name, size in (("large", 20), ("same", 16), ("broken", 16), ("empty", 0)):
        (tmp_path / name).mkdir()
        for file in ("a", "b") if size else ():
            Image.new("L", (size, size), 100).save(tmp_path / name / f"{file}.png")
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    (tmp_path / "empty" / "notes.txt").write_text("none")
    filled = [part.format(tmp=tmp_path, data=data_folder) for part in arguments]
    assert evaluate.main([*filled, "--extractor", str(extractor)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert reason in error[-1]
    assert not any("Traceback" in line for line in error)


# Classes of other data.


@pytest.fixture
def of_classes(values, tmp_path, capsys):
    """A run that knows apple and sky, in this order."""
    write_classes(tmp_path / "photos", {"apple": 200, "sky": 60})
    write_classes(tmp_path / "others", {"apple": 200, "grass": 120, "sky": 60})
    write_classes(tmp_path / "turned", {"a": 60, "b": 200})
    for name in ("photos", "others", "turned"):
        assert prepare.main([f"folder:{tmp_path / name}", str(tmp_path / f"{name}-set")]) == 0
    index = json.loads((tmp_path / "turned-set" / "index.json").read_text())
    index["classes"] = ["sky", "apple"]  # The same pictures as in photos, numbered the other way round.
    (tmp_path / "turned-set" / "index.json").write_text(json.dumps(index))
    values = conditional(values)
    values["data"] |= {"shards": str(tmp_path / "photos-set")}
    values["model"] |= {"classes": 2}
    values["evaluate"] = {"every_images": 0, "samples": 24}
    config = config_of(values, train__total_images=24)
    run_ranks(config, 1, tmp_path / "meeting")
    capsys.readouterr()
    return run_folder(config)


def write_classes(place, shades):
    for name, shade in shades.items():
        (place / name).mkdir(parents=True)
        for number in range(24):
            Image.new("L", (16, 16), shade + number % 7).save(place / name / f"{number}.png")


def test_classes_are_paired_by_name(of_classes, extractor, tmp_path, capsys):
    options = ["--samples", "48", "--metrics", "class_frechet_distance", "--extractor", str(extractor)]
    own = scores(of_classes, capsys, *options)
    other = scores(of_classes, capsys, "--data", str(tmp_path / "turned-set"), *options)
    for name in ("apple", "sky"):
        key = f"class_frechet_distance/{name}"
        assert other[key] == pytest.approx(own[key], rel=1e-6)


def test_data_with_other_classes_is_refused_with_both_lists(of_classes, extractor, tmp_path, capsys):
    options = ["--data", str(tmp_path / "others-set"), "--extractor", str(extractor)]
    assert evaluate.main([str(of_classes), *options, "--metrics", "class_frechet_distance"]) == 2
    assert "the classes apple, grass, sky, but the run has apple, sky" in capsys.readouterr().err
    found = scores(of_classes, capsys, *options)  # All metrics that can be had.
    assert "kid" in found
    assert not any("class" in name for name in found)


# Statistics of real images kept for all runs.


def test_two_fields_of_one_data_set_do_not_share_their_statistics(values, extractor, tmp_path, capsys):
    random = np.random.default_rng(0)
    data = tmp_path / "two"
    data.mkdir()
    with webdataset.TarWriter(str(data / "a.tar")) as tar:
        for number in range(48):
            dark, light = (Image.fromarray(random.integers(low, low + 40, (16, 16), np.uint8)) for low in (0, 200))
            tar.write({"__key__": f"{number:04d}", "png": dark, "seg.png": light})
    assert prepare.main([f"shards:{data}"]) == 0
    values["data"] |= {"shards": str(data)}
    values["evaluate"] = {"every_images": 0, "samples": 24, "extractor": str(extractor), "metrics": []}
    found = {}
    for name, image in (("seg", {"kind": "image", "extension": "seg.png"}), ("plain", "image"), ("seg2", None)):
        field = image or {"kind": "image", "extension": "seg.png"}
        config = config_of(values, run__name=name, data__fields={"image": field}, train__total_images=24)
        run_ranks(config, 1, tmp_path / f"meeting-{name}")
        capsys.readouterr()
        found[name] = scores(run_folder(config), capsys, "--metrics", "fid")["frechet_distance"]
    assert len(list((run_folder(config).parent / ".statistics").iterdir())) == 2
    assert found["seg"] == found["seg2"]
    assert found["plain"] != found["seg"]
