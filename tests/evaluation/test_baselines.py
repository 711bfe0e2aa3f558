"""Scores of a run that translates pictures beside trivial baselines: against brute force, on one worker and two."""

import json
from unittest import mock

import numpy as np
import pytest
import torch

from ganrun import evaluate
from ganrun.evaluation import evaluator
from ganrun.inference.sampling import Sampler
from ganrun.storage import Folder
from ganrun.telemetry.baselines import compare, split
from tests.conftest import config_of
from tests.format1 import write_extractor
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks

METRICS = ("l1", "psnr", "ssim")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs")


@pytest.fixture
def config(values, pairs, tmp_path):
    write_extractor(tmp_path / "means.pt")
    evaluating = {"held_out_share": 0.1, "samples": 12, "every_images": 12, "extractor": str(tmp_path / "means.pt")}
    sections = {"train": {"precision": "float64", "total_images": 12}, "evaluate": {**evaluating, "metrics": METRICS}}
    return config_of(paired(values, pairs, **sections))


def scores(config) -> dict[str, float]:
    """Return the last line of scores of a run."""
    texts = [path.read_text() for path in (run_folder(config) / "metrics").iterdir()]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if "l1" in line][-1]


def test_baselines_are_those_of_brute_force_on_any_number_of_workers(config, tmp_path):
    run_ranks(config, 1, tmp_path / "one")
    found = scores(config)
    generated = Sampler(str(run_folder(config))).generated(0)
    pairs = generated.pairs
    assert (pairs.samples, pairs.training.samples) == (12, pairs.training._samples.__len__())
    training = pairs.training.at(range(pairs.training.samples), torch.device("cpu"), torch.float64)
    lines, images = generated.given(0, 12)["source"], generated.truth(0, 12)
    distances = (lines.flatten(1)[:, None] - training["lines"].flatten(1)).square().sum(2)
    answers = {
        "input": lines.expand(-1, 3, -1, -1),
        "mean": training["image"].mean(0, keepdim=True),
        "nearest": training["image"][distances.argmin(1)],
    }
    for name, answer in answers.items():
        errors = (answer - images).flatten(1)
        assert found[f"l1@{name}"] == pytest.approx(float(errors.abs().mean()), rel=1e-6)
        expected = float((10 * (4 / errors.square().mean(1).clamp(min=1e-10)).log10()).mean())
        assert found[f"psnr@{name}"] == pytest.approx(expected, rel=1e-6)
        assert {f"ssim@{name}", f"frechet_distance@{name}"} <= found.keys()
    two = config.model_copy(
        update={"run": config.run.model_copy(update={"name": "two", "storage": str(tmp_path / "2")})}
    )
    run_ranks(two, 2, tmp_path / "two")
    again = scores(two)
    assert again.keys() == found.keys()
    for name, value in found.items():
        if name != "time":
            assert again[name] == pytest.approx(value, rel=1e-5), name


def test_baselines_are_computed_once_for_all_runs(config, tmp_path, capsys):
    run_ranks(config, 1, tmp_path / "meeting")
    trained = scores(config)
    arguments = [str(run_folder(config)), "--json", "--metrics", ",".join(METRICS)]
    with mock.patch.object(evaluator, "baselines", side_effect=AssertionError("computed again")):
        assert evaluate.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: value for name, value in found.items() if "@" in name} == {
        name: value for name, value in trained.items() if "@" in name
    }
    storage = Folder(config.run.storage)
    for name in storage.list(".statistics"):  # A corrupt file is computed again.
        storage.write(f".statistics/{name}", b"{")
    assert evaluate.main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in found} == found
    kept = storage.list(".statistics")
    with mock.patch.object(evaluator, "BASELINES_FORMAT", 0):  # Those of a ganrun with other scores are not read.
        assert evaluate.main(arguments) == 0
    assert len(storage.list(".statistics")) == len(kept) + 1


def test_the_table_shows_baselines_beside_scores(config, tmp_path, capsys):
    run_ranks(config, 1, tmp_path / "meeting")
    assert evaluate.main([str(run_folder(config))]) == 0
    out = capsys.readouterr().out
    header, *rows = out.splitlines()
    assert header.split() == ["this", "run", "input", "mean", "nearest"]
    row = next(line for line in rows if line.startswith("l1"))
    assert len(row.split()) == 5
    assert all(np.isfinite(float(each)) for each in row.split()[1:])


def test_without_held_out_samples_there_is_only_the_input(values, pairs, tmp_path):
    write_extractor(tmp_path / "means.pt")
    evaluating = {"samples": 12, "every_images": 12, "extractor": str(tmp_path / "means.pt"), "metrics": ["l1"]}
    config = config_of(paired(values, pairs, train={"total_images": 12}, evaluate=evaluating))
    run_ranks(config, 1, tmp_path / "meeting")
    assert {split(name)[1] for name in scores(config)} == {"", "input"}


def test_scores_of_pairs_are_compared_with_the_best_baseline():
    values = {"l1": 0.3, "l1@mean": 0.4, "l1@nearest": 0.2, "psnr": 20.0, "psnr@mean": 10.0, "psnr@input": None}
    values |= {"kid": 1.0, "kid@mean": 0.5, "lpips": None, "lpips@mean": 0.5, "ssim": 0.5}
    first, second = compare(values)
    assert (first.score, first.baseline, first.is_worse) == ("l1", "nearest", True)
    assert (second.score, second.baseline, second.is_worse) == ("psnr", "mean", False)
    assert str(first) == "l1 0.3 (nearest: 0.2)"
