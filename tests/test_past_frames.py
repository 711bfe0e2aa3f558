"""Runs that predict frames, through a worker's own code, and the commands on them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from ganrun import evaluate, export, sample
from ganrun.api.run import load
from ganrun.inference.sampling import Sampler
from tests.clips import of_clips, write_clips
from tests.conftest import config_of, write_yaml
from tests.format1 import write_extractor
from tests.ranks import run_folder, run_ranks
from tests.recorded import ganrun
from tests.test_source import cells


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "clips")


@pytest.fixture
def config(values, clips, tmp_path):
    write_extractor(tmp_path / "means.pt")
    evaluating = {"held_out_share": 0.1, "samples": 12, "every_images": 24, "extractor": str(tmp_path / "means.pt")}
    sections = {
        "train": {"total_images": 24, "tick_images": 24},
        "telemetry": {"sample_images": 4},
        "evaluate": evaluating | {"metrics": ["psnr", "ssim", "horizons"], "best": {"metric": "psnr_3"}},
    }
    return config_of(of_clips(values, clips, **sections))


@pytest.fixture
def run(config, tmp_path):
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def scores(run):
    lines = [json.loads(line) for path in (run / "metrics").iterdir() for line in path.read_text().splitlines()]
    return [line for line in lines if "psnr_1" in line][-1]


def decibels(images, truth):
    error = (images.clamp(-1, 1) - truth).square().flatten(1).mean(1).clamp(min=1e-10)
    return float((10 * (4 / error).log10()).mean())


@torch.no_grad()
def test_horizons_are_scored_beside_the_last_frame_on_any_number_of_workers(run, config, tmp_path, capsys):
    found = scores(run)
    names = {f"{name}_{horizon}{of}" for name in ("psnr", "ssim") for horizon in (1, 2, 3) for of in ("", "@copy_last")}
    assert names <= found.keys()
    assert not [name for name in found if "_4" in name or "@mean" in name]
    generated = Sampler(str(run)).generated(config.run.seed)
    given, condition = generated.given(0, 12), generated.game.condition
    frames = [generated.pairs.batch(0, 12, torch.device("cpu"), torch.float64)[name] for name in ("past_1", "image")]
    later = generated.later(0, generated.images(0, 12))
    truths = [frames[1], *(truth for _, truth in later)]
    assert torch.equal(given["past"][:, -1:], frames[0])
    for horizon, truth in enumerate(truths, 1):
        assert found[f"psnr_{horizon}@copy_last"] == pytest.approx(decibels(frames[0], truth), rel=1e-6)
    images = generated.images(0, 12)
    for horizon in (1, 2, 3):
        assert found[f"psnr_{horizon}"] == pytest.approx(decibels(images, truths[horizon - 1]), rel=1e-6)
        given = condition.following(given, images)
        noise = generated.noise(0, 12).under(f"horizon/{horizon + 1}")
        images = generated.game.sample(generated.networks, 12, noise, given)
    assert (found["psnr_1"], found["ssim_1"]) == (found["psnr"], found["ssim"])
    assert json.loads((run / "best.json").read_text())["score"] == pytest.approx(found["psnr_3"])
    two = {**config.run.model_dump(), "storage": str(tmp_path / "two")}
    two = config.model_copy(update={"run": type(config.run)(**two)})
    run_ranks(two, 2, tmp_path / "two-meet")
    assert scores(run_folder(two)) == {
        name: value if name == "time" else pytest.approx(value, rel=1e-6)
        for name, value in (found | {"time": scores(run_folder(two))["time"]}).items()
    }
    assert evaluate.main([str(run), "--json", "--metrics", "horizons"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert all(again[name] == pytest.approx(found[name], rel=1e-6) for name in names)


def test_pictures_show_past_predictions_and_truth(run, tmp_path):
    assert sample.main([str(run), "--out", str(tmp_path / "grid.png"), "--count", "3"]) == 0
    (at_tick,) = (run / "samples").glob("*24.png")
    generated = Sampler(str(run)).generated(0)
    batch = generated.pairs.batch(0, 3, torch.device("cpu"), torch.float64)
    names = ["past_3", "past_2", "past_1", None, None, None, "image", "next_2", "next_3"]
    for picture in (tmp_path / "grid.png", at_tick):
        grid = cells(picture)
        assert grid.shape[1] == len(names)
        for clip in range(3):
            for column, name in enumerate(names):
                shown = grid[clip, column, ..., 0] / 127.5 - 1
                if name:
                    assert np.abs(shown - batch[name][clip, 0].numpy()).max() < 0.01
                else:
                    assert np.abs(shown - batch["past_1"][clip, 0].numpy()).max() > 0.01
    grid = cells(tmp_path / "grid.png")
    images = generated.images(0, 3)
    second = generated.later(0, images)[0][0]
    for column, expected in ((3, images), (4, second)):
        assert np.abs(grid[0, column, ..., 0] / 127.5 - 1 - expected[0, 0].clamp(-1, 1).numpy()).max() < 0.01


def test_a_clip_of_ones_own_is_continued(run, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(1, 13):  # By names alone, 10 would come before 2.
        pixels = np.zeros((40, 50), np.uint8)
        pixels[10:20, number : number + 10] = 200
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = tmp_path / "out"
    assert sample.main([str(run), "--input", str(folder), "--frames", "4", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [*(f"{number:06d}.png" for number in range(1, 5)), "clip.gif"]
    with Image.open(out / "clip.gif") as gif:
        shown = [np.asarray(frame.convert("L")).astype(int) for frame in ImageSequence.Iterator(gif)]
    assert len(shown) == 7
    square = Image.open(folder / "12.png").crop((5, 0, 45, 40)).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.abs(shown[2] - np.asarray(square)).max() <= 1
    first = np.asarray(Image.open(out / "000001.png")).astype(int)
    assert first.shape == (32, 32)
    assert np.abs(shown[3] - first).max() <= 1
    assert not np.array_equal(first, shown[2])
    images = [
        frame.convert("RGB") for frame in map(Image.open, sorted(folder.glob("*.png"), key=lambda p: int(p.stem)))
    ]
    listed = load(str(run)).sample(1, condition=images)
    assert torch.equal(listed, load(str(run)).sample(1, condition=folder))
    images[0].save(tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=40)
    again = tmp_path / "again"
    assert sample.main([str(run), "--input", str(tmp_path / "clip.gif"), "--frames", "1", "--out", str(again)]) == 0
    assert np.abs(np.asarray(Image.open(again / "000001.png")).astype(int) - first).max() <= 2  # Of 256 colours.


REFUSED = [
    (["--input", "two", "--frames", "3"], "two: 2 frames, but this run continues clips of 3; give more"),
    (["--input", "none.mp4", "--frames", "3"], "none.mp4: no such file or folder; give a video, a GIF"),
    (["--input", "text.gif", "--frames", "3"], "text.gif: cannot be decoded"),
    (["--input", "empty", "--frames", "3"], "empty: no frame in it"),
    (["--input", "two"], "this run continues clips; say how many frames to predict: --frames 10"),
    (["--input", "two", "--frames", "3", "--count", "2"], "--count: does not go with --frames"),
    (["--frames", "3"], "--frames: is for pictures of --input"),
    (["--input", "out", "--frames", "3"], "--out out: would overwrite out; name another folder"),
    (["--input", "out/clip.gif", "--frames", "3"], "--out out: would overwrite out/clip.gif"),
]


def test_clips_that_cannot_be_continued_are_refused_in_one_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("two", "empty"):
        (tmp_path / name).mkdir()
    for number in (1, 2):
        Image.new("L", (32, 32)).save(tmp_path / f"two/{number}.png")
    (tmp_path / "text.gif").write_text("no picture")
    for options, words in REFUSED:
        code, _, error = ganrun("sample", run, "--out", "out", *options)
        assert (code, error.count("\n")) == (2, 1), error
        assert words in error


def test_an_exported_program_takes_past_frames(run, tmp_path):
    assert export.main([str(run), "--out", str(tmp_path / "g.pt2")]) == 0
    past = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    made = torch.export.load(tmp_path / "g.pt2").module()(past)
    assert made.shape == (2, 1, 32, 32)
    assert (made - past[:, -1:]).abs().max() < 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.past_frames={frames: 5, horizons: 4}"], "add past_4: image, past_5: image, next_4: image"),
        (["data.fields.past_2={kind: image, channels: 3}"], "add past_2: image"),
        (["objective.past_frames.frames=17"], "objective.past_frames.frames: 17 is not allowed"),
        (["objective.past_frames.frame=2"], "did you mean objective.past_frames.frames?"),
        (["evaluate.best.metric=psnr_4"], "evaluate.best.metric: psnr_4 is not computed"),
        (["evaluate.best.metric=horizons"], "name one of its values, psnr_1 or ssim_1"),
        (
            ["evaluate.metrics=[psnr_hole]", "evaluate.best.metric=distance"],
            "objective.condition: past_frames has none",
        ),
        (
            ["objective.condition=low_resolution", "objective.past_frames={}", "evaluate.best.metric=distance"],
            "evaluate.metrics: horizons is of frames, but objective.condition: low_resolution has none",
        ),
        (
            ["objective.condition=masked", "evaluate.metrics=[]", "evaluate.best.metric=distance"],
            ": 3 has no effect with objective.condition: masked; set objective.condition: past_frames",
        ),
    ],
)
def test_faults_of_a_config_are_one_line_each(values, clips, tmp_path, overrides, words):
    evaluating = {"metrics": ["horizons"], "best": {"metric": "psnr_2"}}
    file = write_yaml(tmp_path / "run.yaml", of_clips(values, clips, evaluate=evaluating))
    assert ganrun("train", file, "--dry-run")[0] == 0
    code, _, error = ganrun("train", file, "--dry-run", *overrides)
    assert code == 2
    assert words in error
    assert "1 fault in" in error, error


def test_data_without_a_frame_is_refused_before_the_run(values, tmp_path):
    (tmp_path / "stills").mkdir()
    for number in range(3):
        Image.new("L", (32, 32), number).save(tmp_path / f"stills/{number}.png")
    assert ganrun("prepare", f"folder:{tmp_path}/stills", tmp_path / "still", "--workers", 1)[0] == 0
    values = of_clips(values, tmp_path / "still")
    values["data"]["slots"] = 2
    file = write_yaml(tmp_path / "run.yaml", values)
    code, _, error = ganrun("train", file, "--validate")
    assert code == 2
    assert "data.fields.next_2: image, but 3 of 3 samples in" in error
