"""Folders of ganrun 0.1.0 in tests/data/format1 can be read, resumed and sampled; format1.py made them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from ganrun.config.load import load_config
from ganrun.run_folder.run_config import settle, write_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from tests.format1 import STOPPED, copy_to
from tests.ranks import latest_tensors, run_ranks
from tests.recorded import GOLDEN, RECORD, expect_numbers, expect_text, ganrun, masked, recorded, said
from tests.test_golden import curve, figures

RELATIVE, ABSOLUTE = 1e-12, 1e-12
"""Tolerances of losses after a resume in float64."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Working directory with a copy of all folders."""
    return copy_to(tmp_path / "format1", monkeypatch)


def per_tensor(tensors):
    return {recorded(name): figures(tensor.double().flatten()) for name, tensor in sorted(tensors.items())}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("list", ("list", ".")),
        ("list_trials", ("list", "search/trials")),
        ("show_run", ("show", "run")),
        ("show_search", ("show", "search")),
        ("show_trial", ("show", "search/trials/01")),
        ("gc", ("gc", ".")),
    ],
)
def test_runs_says_what_it_said(place, name, arguments):
    code, output, error = ganrun("runs", *arguments)
    assert (code, error) == (0, "")
    expect_text(f"format1/{name}.txt", masked(output, place))


@pytest.mark.parametrize(("name", "run"), [("run", "run"), ("trial", "search/trials/01")])
def test_the_curve_of_a_run_is_merged_as_it_was(place, name, run):
    lines = [json.loads(line) for line in said("runs", "curve", run).splitlines()]
    lines = [{recorded(key): value for key, value in line.items()} for line in lines]
    expect_numbers(f"format1/curve_{name}.json", lines, 1e-12)


def test_a_curve_is_drawn(place):
    assert said("runs", "curve", "run", "--plot", "curve.png") == "curve.png\n"
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_samples_are_the_images_that_they_were(place):
    said("sample", "run", "--out", "grid.png", "--count", 4, "--seed", 3)
    then = GOLDEN / "format1/grid.png"
    if os.environ.get(RECORD):
        shutil.copy("grid.png", then)
    now, then = (np.asarray(Image.open(path), np.int16) for path in ("grid.png", then))
    assert now.shape == then.shape
    assert np.abs(now - then).max() <= 1


def test_the_exported_generator_has_its_weights_and_its_config(place):
    said("export", "run", "--out", "generator.safetensors")
    with safe_open("generator.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        keys = {key: len(value) > 0 for key, value in file.metadata().items()}
    expect_numbers("format1/export.json", {"metadata": keys, "tensors": per_tensor(tensors)}, 1e-12)


@pytest.mark.parametrize("name", ["run", "checkpoint"])
def test_scores_are_what_they_were(place, name):
    """Features come from 8-bit images, where a pixel may be rounded differently."""
    run = {"run": "run", "checkpoint": "run/checkpoints/000000000060-0001"}[name]
    scores = json.loads(said("evaluate", run, "--json"))
    assert len(scores.pop("extractor_sha256")) == 64
    expect_numbers(f"format1/evaluate_{name}.json", scores, 1e-3, 1e-6)


def test_the_run_goes_on_from_its_checkpoint_and_ends_as_it_did(place):
    config, folder = load_config("run/config.yaml"), RunFolder(open_storage("run"))
    config = settle(config, folder)
    write_config(config, folder)
    run_ranks(config, 1, place / "meeting")
    (start,) = [event for event in events() if event["kind"] == "start"]
    assert (start["images"], start["checkpoint"]) == (STOPPED, f"{STOPPED:012d}-0001")
    assert (start["attempt"], start["damaged"]) == (2, [])
    lines = [line for line in curve(place / "run") if line["images"] > STOPPED]
    expect_numbers("format1/resumed_curve.json", lines, 1e-6, 1e-9)
    expect_numbers("format1/resumed_tensors.json", per_tensor(latest_tensors(config)), RELATIVE, ABSOLUTE)
    assert said("runs", "show", "run").startswith("run: finished, 240 of 240 images (100 %)")


def events():
    return map(json.loads, Path("run/events/0002.jsonl").read_text().splitlines())


def test_another_run_begins_with_its_weights(place):
    config = load_config("run/config.yaml", ["run.name=other", "run.start_from=run", "train.total_images=24"])
    run_ranks(config, 1, place / "meeting")
    text = Path("other/events/0001.jsonl").read_text()
    assert '"unfit"' not in text


def test_a_finished_search_has_nothing_left_to_do(place):
    code, output, error = ganrun("tune", "search/config.yaml")
    assert (code, output) == (0, f"{place}/search\n"), error
    assert "nothing left to do" in error
