"""Data sets with known modes: points of a mixture, and stacks of three grey images."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.evaluation.modes import MIXTURES, modes
from ganrun.preparation.points import draw
from ganrun.preparation.published_datasets import open_fashion_mnist
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.preparation.making import bytes_of, idx, prepare, read_all


@pytest.fixture
def points(tmp_path: Path) -> Path:
    assert prepare("gaussians:8", tmp_path / "ring", "--samples", 200, "--seed", 5) == 0
    return tmp_path / "ring"


def test_points_are_written_with_their_modes(points: Path) -> None:
    of = MIXTURES["gaussians:8"]
    index, samples = read_all(points)
    assert (index.image_size, index.channels, index.samples, len(index.shards)) == (1, 2, 200, 8)
    assert index.classes[:2] == ("(2, 0)", "(1.41, 1.41)")
    assert index.made["source"] == "gaussians:8"
    drawn, labels = draw(of, 200, 5)
    for (_, members), point, label in zip(sorted(samples.items()), drawn, labels, strict=True):
        assert np.array_equal(np.float32(json.loads(bytes(members["json"]))), point)
        assert int(bytes(members["cls"])) == label
        assert np.linalg.norm(point * of.scale - of.centres[label]) < 6 * of.sd
    assert modes(drawn, of)["modes_covered"] == 8
    assert Image.open(points / "preview.png").size == (700, 700)


def test_modes_are_as_equal_in_number_as_can_be() -> None:
    _, labels = draw(MIXTURES["gaussians:25"], 1_010, 0)
    assert sorted(np.bincount(labels)) == [40] * 15 + [41] * 10
    assert not np.array_equal(labels, np.sort(labels))


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(points: Path, tmp_path: Path) -> None:
    for name, seed in (("again", 5), ("other", 6)):
        assert prepare("gaussians:8", tmp_path / name, "--samples", 200, "--seed", seed) == 0
    assert bytes_of(tmp_path / "again") == bytes_of(points)
    assert bytes_of(tmp_path / "other") != bytes_of(points)


def test_a_stopped_run_goes_on_and_a_finished_one_stays(points: Path, tmp_path: Path) -> None:
    whole, made = bytes_of(points), json.loads((points / "index.json").read_text())["made"]
    keys = ("source", "samples", "seed", "scale", "sd")
    (points / "unfinished.json").write_text(json.dumps({"made": {key: made[key] for key in keys}, "done": {}}))
    (points / "index.json").unlink()
    assert prepare("gaussians:8", points, "--samples", 200, "--seed", 5) == 0
    assert bytes_of(points) == whole
    assert prepare("gaussians:8", points, "--samples", 300) == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("gaussians:9", "D"), "no such mixture; use gaussians:8 or gaussians:25"),
        (("gaussians", "D"), "gaussians:8 or gaussians:25"),
        (("gaussians:8",), "DEST is missing"),
        (("gaussians:8", "D", "--size", 8), "--size: only for"),
        (("gaussians:8", "D", "--gzip"), "--gzip: only for"),
        (("folder:x", "D", "--samples", 8), "--samples: only for stacked, gaussians"),
        (("stacked:package:no", "D"), "no train-images-idx3-ubyte.gz"),
        (("stacked:x", "D", "--limit", 3), "--limit: only for"),
    ],
)
def test_what_does_not_go_is_said(
    arguments: tuple[object, ...],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare(*arguments) == 2
    assert part in capsys.readouterr().err


def test_a_game_over_points_is_played(points: Path) -> None:
    config = Config.model_validate(
        {
            "run": {"name": "points"},
            "data": {
                "shards": str(points),
                "image_size": 1,
                "channels": 2,
                "batch_size": 20,
                "fields": {"image": "point", "label": "label"},
            },
            "model": {"name": "mlp", "width": 8, "latent_size": 4},
            "train": {"total_images": 1},
        }
    )
    data = open_data(str(points))
    order = Order(tuple(shard.samples for shard in data.index.shards), 1, 0, 1)
    stream = Stream(data, config.data, order, [0], 0)
    state = new_state(config, torch.device("cpu"), Slots(1))
    before = state.game.networks["generator"].layers[0].weight.clone()
    try:
        batch = stream.next()[0]
        assert batch["image"].shape == (20, 2, 1, 1)
        assert batch["image"].abs().max() < 1.1
        for _ in range(3):
            state.round(stream.next)
    finally:
        stream.close()
    assert not torch.equal(state.game.networks["generator"].layers[0].weight, before)
    assert state.skipped == 0


def test_stacks_are_three_images_with_their_digits(tmp_path: Path) -> None:
    source = open_fashion_mnist(str(idx(tmp_path / "in")), None, False)
    assert prepare(f"stacked:{tmp_path / 'in'}", tmp_path / "out", "--samples", 30) == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, index.samples, len(index.classes)) == (32, 3, 30, 1000)
    assert index.classes[123] == "123"
    drawn = set()
    for members in samples.values():
        pixels = np.asarray(Image.open(io.BytesIO(members["png"])))
        found = [
            next(
                label
                for image, label in zip(source.images, source.labels, strict=True)
                if np.array_equal(image, pixels[..., n])
            )
            for n in range(3)
        ]
        assert int(bytes(members["cls"])) == 100 * found[0] + 10 * found[1] + found[2]
        drawn.add(tuple(found))
    assert len(drawn) > 20


def test_stacks_are_made_of_what_travels_with_ganrun_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert prepare("stacked:package:fashion-mnist-10k", tmp_path / name, "--samples", 16, "--seed", 2) == 0
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    index, _ = read_all(tmp_path / "a")
    assert (index.samples, index.channels) == (16, 3)
