"""A complete run over points: modes are counted, plotted and equal for any number of workers."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from ganrun import evaluate, sample
from ganrun.cli import preflight
from ganrun.config.validate import conflicts
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.modes import MIXTURES, modes
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.inference.sampling import Sampler
from ganrun.preparation.points import make_points
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.status import read_status
from ganrun.storage import Folder
from tests.conftest import config_of
from tests.evaluation.making import Shown
from tests.ranks import Ranks, run_folder, run_ranks

SAMPLES = 150
"""Over two chunks and a short one."""


@pytest.fixture
def values(tmp_path):
    make_points("gaussians:8", str(tmp_path / "ring"), 240, 0)
    return {
        "run": {"name": "points", "storage": str(tmp_path / "runs")},
        "data": {
            "shards": str(tmp_path / "ring"),
            "image_size": 1,
            "channels": 2,
            "batch_size": 12,
            "slots": 3,
            "fields": {"image": "point"},
        },
        "model": {"name": "mlp", "width": 8, "latent_size": 4},
        "train": {"total_images": 120, "precision": "float64", "tick_images": 60},
        "evaluate": {"every_images": 60, "samples": SAMPLES},
        "checkpoint": {"every_images": 0},
    }


def scored(config):
    """Lines of metrics with a score."""
    (file,) = (run_folder(config) / "metrics").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "time"} for line in lines if "mode_distance" in line
    ]


@pytest.fixture
def run(values, tmp_path):
    config = config_of(values)
    run_config.write_config(config, RunFolder(Folder(run_folder(config))))
    run_ranks(config, 1, tmp_path / "meeting")
    return config


def test_what_is_told_are_the_modes_of_the_averaged_generator(run, capsys):
    lines, folder = scored(run), run_folder(run)
    assert [line["images"] for line in lines] == [60, 120]
    sampler = Sampler(str(folder))
    generated = GeneratedImages(sampler.game, sampler.game.networks, run.run.seed)
    points = torch.cat([generated.images(start, min(64, SAMPLES - start)) for start in range(0, SAMPLES, 64)])
    assert lines[-1] == pytest.approx({"images": 120, **modes(points.numpy(), MIXTURES["gaussians:8"])})
    assert "frechet_distance" not in lines[-1]
    best = min(line["mode_distance"] for line in lines)
    state = read_status(Folder(folder))
    assert state.best_score.value == best
    (manifest,) = folder.glob("checkpoints/*120-*/manifest.json")
    (told,) = json.loads(manifest.read_text())["scores"]
    assert told["name"] == f"mode distance (gaussians:8, n={SAMPLES})"
    assert (told["measure"], told["value"]) == ("mode_distance", lines[-1]["mode_distance"])
    assert evaluate.main([str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in lines[-1]} == lines[-1]
    assert (found["samples"], found["extractor"]) == (SAMPLES, None)


def test_workers_do_not_enter(values, run, tmp_path):
    alone, pictures = scored(run), sorted((run_folder(run) / "samples").iterdir())
    config = config_of(values, run__name="both")
    run_ranks(config, 2, tmp_path / "meeting2")
    for one, other in zip(alone, scored(config), strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    others = sorted((run_folder(config) / "samples").iterdir())
    assert [path.read_bytes() for path in others] == [path.read_bytes() for path in pictures]


def test_a_picture_says_where_it_comes_from(run):
    first, *_, last = sorted((run_folder(run) / "samples").iterdir())
    picture = Image.open(last)
    assert picture.size == (700, 700)
    assert (picture.text["images"], picture.text["attempt"]) == ("120", "1")
    assert Image.open(first).tobytes() != picture.tobytes()


def test_points_are_sampled_as_one_picture(run, tmp_path, capsys):
    folder = str(run_folder(run))
    assert sample.main([folder, "--out", str(tmp_path / "points.png"), "--count", "100"]) == 0
    assert Image.open(tmp_path / "points.png").size == (700, 700)
    assert sample.main([folder, "--out", str(tmp_path / "points")]) == 2
    assert "points are plotted in one picture" in capsys.readouterr().err


def test_words_for_people(run, capsys):
    assert evaluate.main([str(run_folder(run)), "--samples", "70"]) == 0
    output = capsys.readouterr().out
    assert "mode distance (gaussians:8, n=70)" in output
    assert "high_quality_share" in output
    assert "checkpoint at 120 images; 70 samples of seed 0\n" in output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--metrics", "kid"], "metrics: kid cannot be computed: points have no features"),
        (["--extractor", "efficientnet-lite0"], "--extractor: only for images"),
        (["--classifier-accuracy"], "--classifier-accuracy: only for images"),
    ],
)
def test_what_images_alone_have_is_refused_at_the_door(run, capsys, options, reason):
    capsys.readouterr()
    assert evaluate.main([str(run_folder(run)), *options]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("extractor", "inception-v3-compat"),
        ("extractor_weights", "a.pth"),
        ("metrics", ["kid"]),
        ("metrics", ["modes"]),
    ],
)
def test_what_images_alone_have_is_refused_in_the_config(values, key, value):
    ((keys, fault),) = conflicts(config_of(values, **{f"evaluate__{key}": value}))
    assert f"evaluate.{key}" in keys
    assert fault.startswith(f"evaluate.{key}: {value} is for images")


def test_points_of_ones_own_are_trained_but_not_scored(values, tmp_path):
    index = tmp_path / "ring" / "index.json"
    fields = json.loads(index.read_text())
    fields["made"] = {}
    index.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"evaluate\.every_images: 60, but the modes of the points"):
        preflight.check(config_of(values))
    config = config_of(values, evaluate__every_images=0)
    preflight.check(config)
    run_ranks(config, 1, tmp_path / "meeting")
    assert not (run_folder(config) / "samples").exists()
    assert evaluate.main([str(run_folder(config))]) == 2


def test_a_generator_that_is_not_finite_is_as_far_as_can_be(values, run):
    sampler = Sampler(str(run_folder(run)))
    for parameter in sampler.game.networks["generator"].parameters():
        parameter.data.fill_(math.nan)
    index = open_data(values["data"]["shards"]).index
    score = PointEvaluator(index, 70, {}, Folder(run.run.storage)).score(
        GeneratedImages(sampler.game, sampler.game.networks, 0)
    )
    assert score.value == pytest.approx(1 - math.exp(-4.5))
    assert score.values()["mode_kl"] is None


def test_every_rank_has_the_numbers_of_rank_0(values, tmp_path, monkeypatch):
    """Each decides by them whether all save a checkpoint, and the last bits may differ between CPU models."""

    def broadcast(found, group, group_src):
        found[0] = replace(found[0], value=0.25)

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, group: None)
    evaluator = PointEvaluator(open_data(values["data"]["shards"]).index, 70, {}, Folder(tmp_path))
    at_the_centre = Shown(torch.zeros(evaluator.samples, 2, 1, 1))
    assert evaluator.score(at_the_centre).value != 0.25
    assert evaluator.score(at_the_centre, Ranks(1, 2)).value == 0.25
