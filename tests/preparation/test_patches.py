"""`ganrun prepare folder: --patches`: large photographs are cut into patches, of which those with texture are kept."""

import io

import numpy as np
import pytest
from PIL import Image

from ganrun.preparation.patches import gradient_energies
from tests.preparation.making import noise, prepare, read_all


@pytest.fixture
def photographs(tmp_path):
    """Sky above noise, 33 wide and 48 high; noise of 40x16; a picture smaller than a patch; a broken file."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    half = np.asarray(noise(0, (33, 48))).copy()
    half[:32] = 200
    Image.fromarray(half).save(folder / "half.png")
    noise(1, (40, 16)).save(folder / "noise.png")
    noise(2, (15, 99)).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def test_the_energy_is_the_mean_squared_difference_of_neighbours():
    ramp = np.zeros((8, 8), np.uint8)
    ramp[:] = 2 * np.arange(8)
    assert gradient_energies(np.hstack([ramp, ramp.T, np.full((8, 8), 9, np.uint8)]), 8).tolist() == [4, 4, 0]


def test_the_most_textured_share_is_kept_and_recorded(photographs, tmp_path):
    out = tmp_path / "patches"
    assert prepare(f"folder:{photographs}", out, "--size", 16, "--patches", 0.5) == 0
    index, samples = read_all(out)
    # Of 6 + 2 patches four have noise.
    assert (index.samples, index.image_size, index.channels) == (4, 16, 3)
    assert index.made["patches"] == {"share": 0.5, "by": "gradient energy", "of": 8}
    assert (index.made["resize"], index.made["skipped"]) == ("none", 1)
    assert index.made["left_out"] == ["1 picture smaller than a patch"]
    found = [np.asarray(Image.open(io.BytesIO(members["png"]))) for members in samples.values()]
    half, whole = (np.asarray(Image.open(photographs / name)) for name in ("half.png", "noise.png"))
    expected = [half[32:, :16], half[32:, 16:32], whole[:, 4:20], whole[:, 20:36]]
    assert sorted(each.tobytes() for each in found) == sorted(each.tobytes() for each in expected)
    assert "broken.png: " in (out / "skipped.txt").read_text()


def test_of_patches_without_texture_the_share_is_kept_too_and_said(tmp_path, capsys):
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(4):
        Image.new("L", (64, 64), 40 * number).save(folder / f"{number}.png")
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = noise(0, (32, 64)).convert("L")
    Image.fromarray(half).save(folder / "half.png")
    assert prepare(f"folder:{folder}", tmp_path / "out", "--size", 32, "--patches", 0.5) == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.samples, index.made["patches"]["of"]) == (10, 20)
    assert "patches: 10 of 20 are kept, those with most texture" in capsys.readouterr().err
    found = {np.asarray(Image.open(io.BytesIO(members["png"]))).tobytes() for members in samples.values()}
    assert {half[:32, 32:].tobytes(), half[32:, 32:].tobytes()} <= found


def test_pictures_are_made_smaller_first(photographs, tmp_path):
    out = tmp_path / "patches"
    assert prepare(f"folder:{photographs}", out, "--size", 8, "--patches", 1, "--shrink", 2, "--channels", 1) == 0
    index, samples = read_all(out)
    assert (index.samples, index.channels) == (2 * 3 + 2, 1)
    assert index.made["resize"] == "to 1/2, lanczos"
    small = Image.open(photographs / "noise.png").resize((20, 8), Image.Resampling.LANCZOS).convert("L")
    found = {np.asarray(Image.open(io.BytesIO(members["png"]))).tobytes() for members in samples.values()}
    assert np.asarray(small)[:, 2:10].tobytes() in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--patches", 0.5], "--patches 0.5: needs the side of the patches in pixels; give --size"),
        (["--size", 8, "--shrink", 2], "--shrink 2: is for patches; give --patches"),
        (["--size", 64, "--patches", 1], "no picture is as large as a patch of 64 pixels a side"),
        (["--size", 8, "--patches", 1, "--strict"], "broken.png: "),
    ],
)
def test_what_does_not_go_is_said(options, words, photographs, tmp_path, capsys):
    assert prepare(f"folder:{photographs}", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_patches_are_of_folders(tmp_path, capsys):
    assert prepare(f"cifar10:{tmp_path}", tmp_path / "out", "--patches", 0.5, "--size", 8) == 2
    assert "--patches: only for folder" in capsys.readouterr().err
