"""`ganrun prepare shards:URI --show`: a picture of random samples, and what travels with ganrun as a source."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.preparation.making import bytes_of, prepare, read_all, shards_of
from tests.preparation.making import png as encoded


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Return a data set whose samples are red beside grey, with classes and texts."""
    red = encoded(Image.new("RGB", (8, 8), "#f00"), tmp_path)
    grey = encoded(Image.new("L", (8, 8), 128), tmp_path)
    samples = [(str(n), {"png": red, "low.png": grey, "cls": b"1", "txt": b"W" * 500}) for n in range(5)]
    place = shards_of(tmp_path / "in", samples[:2], samples[2:])
    assert prepare(f"shards:{place}") == 0
    return place


def test_all_pictures_of_a_sample_are_drawn_side_by_side(
    coloured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bytes_of(coloured)
    assert prepare(f"shards:{coloured}", tmp_path / "seen.png", "--show") == 0
    sheet = np.asarray(Image.open(tmp_path / "seen.png"))
    assert sheet.shape == (8 + 2 * (96 + 18 + 8), 8 + 4 * (2 * 96 + 8), 3)  # 4 samples and 1 below them
    red, grey = ((sheet == colour).all(2).sum() for colour in ((255, 0, 0), (128, 128, 128)))
    assert red == 5 * 96**2
    assert abs(grey - 5 * 96**2) < 500  # A caption has some grey pixels, too.
    assert (sheet[8 + 96 : 8 + 96 + 18] < 128).any()
    assert (sheet[:, :8] == 255).all()
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "seen.png")
    assert "5 images" in err
    assert "each with low: 8x8, channels: 1" in err
    assert "channel means (0 to 255): 255.0 0.0 0.0" in err
    assert bytes_of(coloured) == before


def test_the_seed_draws_other_samples(tmp_path: Path) -> None:
    for name, options in (("a", []), ("b", []), ("c", ["--seed", 1])):
        assert prepare("shards:package:fluent-emoji", tmp_path / f"{name}.png", "--show", *options) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_by_default_the_picture_is_in_the_working_folder(
    coloured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare(f"shards:{coloured}", "--show") == 0
    assert capsys.readouterr().out == "samples.png\n"
    assert (tmp_path / "samples.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shards:{0}", "{1}/x.jpg", "--show"], "give a file that ends with .png"),
        (["shards:{0}", "{1}/none/x.png", "--show"], "No such file or directory; name another file"),
        (["shards:{0}", "--show", "--size", "8"], "--size: not together with --show"),
        (["shards:{1}", "--show"], "no shards and no index"),
        (["folder:{0}", "{1}/x.png", "--show"], "--show: only for shards"),
        (["shards:{0}", "--seed", "1"], "--seed: only for"),
        (["shards:{1}/points", "--show"], "the samples are points, not pictures"),
        (["shards:package:fluent-emoji"], "travels with ganrun and is not indexed anew"),
        (["shards:package:emoji", "--show"], "no data set 'package:emoji'"),
    ],
)
def test_wrong_commands_are_one_line(
    coloured: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("gaussians:8", tmp_path / "points", "--samples", 16) == 0
    capsys.readouterr()
    assert prepare(*(each.format(coloured, tmp_path) for each in arguments)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_what_travels_can_be_copied_in_another_size(tmp_path: Path) -> None:
    assert prepare("shards:package:fluent-emoji", tmp_path / "small", "--size", 16) == 0
    index, samples = read_all(tmp_path / "small")
    assert (index.samples, index.image_size) == (1594, 16)
    assert {name: (shape.size, shape.channels) for name, shape in index.pictures.items()} == {"lines": (16, 1)}
    assert set(samples["00000000"]) == {"png", "lines.png", "txt", "text.npy"}
