"""`ganrun sample --input`: pictures of a user, whole or in tiles, restored in size and orientation."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from ganrun.api.run import load
from ganrun.games.conditions import UNCONDITIONAL
from ganrun.inference import translation
from ganrun.inference.exporting import write_onnx, write_program
from ganrun.inference.sampling import Sampler
from ganrun.inference.translation import Translator, starts
from tests.conftest import config_of
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks
from tests.recorded import ganrun


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by name: a U-Net without z, a trunk with z that takes one size, and a network that doubles sizes."""
    place = tmp_path_factory.mktemp("runs")
    pairs, found = write_pairs(place / "pairs"), {}
    values = {
        "run": {"storage": str(place)},
        "data": {"batch_size": 12},
        "train": {"total_images": 12, "tick_images": 12},
        "telemetry": {"sample_images": 1, "push_seconds": 0},
    }
    for name, model in (("pix2pix", {"width": 2}), ("r3gan", {"width": 8, "latent_size": 8})):
        mine = paired(values, pairs, model={"name": name, **model}, run={"name": name})
        config = config_of(mine)
        run_ranks(config, 1, place / f"meeting-{name}")
        found[name] = run_folder(config)
    mine = paired(values, pairs, model={"name": "srgan", "width": 2, "blocks": 1}, run={"name": "srgan"})
    mine["objective"] = {"condition": "low_resolution", "low_resolution": {"factor": 2}}
    config = config_of(mine)
    run_ranks(config, 1, place / "meeting-srgan")
    found["srgan"] = run_folder(config)
    mine = paired(values, pairs, run={"name": "masked"})
    mine["objective"] = {"condition": "masked"}
    config = config_of(mine)
    run_ranks(config, 1, place / "meeting-masked")
    return found | {"masked": run_folder(config)}


def picture(path, width, height, orientation=None, mode="RGB"):
    random = np.random.default_rng(width)
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    return path


def sample(run, *options):
    return ganrun("sample", run, *options)


@pytest.mark.parametrize("name", ["pix2pix", "r3gan"])
@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 50), (90, 64), (40, 130)])
def test_a_picture_keeps_its_size(runs, tmp_path, name, width, height):
    path = picture(tmp_path / "in/cat.jpg", width, height)
    code, said, _ = sample(runs[name], "--input", path, "--out", tmp_path / "out")
    assert (code, said.splitlines()[-1]) == (0, str(tmp_path / "out"))
    (found,) = (tmp_path / "out").iterdir()
    assert found.name == "cat.png"
    assert Image.open(found).size == (width, height)
    assert Image.open(found).mode == "RGB"


def test_a_picture_is_enlarged_by_the_factor_of_its_condition(runs, tmp_path):
    path = picture(tmp_path / "cat.png", 37, 16)
    assert sample(runs["srgan"], "--input", path, "--out", tmp_path / "out")[0] == 0
    assert Image.open(tmp_path / "out/cat.png").size == (74, 32)


@pytest.mark.parametrize("options", [[], ["--resize"]])
@pytest.mark.parametrize(("width", "height"), [(32, 32), (70, 45)])
def test_known_pixels_of_a_picture_are_kept_exactly(runs, tmp_path, width, height, options):
    path = picture(tmp_path / "cat.png", width, height)
    hole = np.zeros((height, width), np.uint8)
    hole[5:14, 3:20], hole[30, 9] = 255, 1
    Image.fromarray(hole).save(tmp_path / "hole.png")
    mask = ["--mask", tmp_path / "hole.png"]
    assert sample(runs["masked"], "--input", path, *mask, "--out", tmp_path / "out", *options)[0] == 0
    before, after = (np.asarray(Image.open(each)) for each in (path, tmp_path / "out/cat.png"))
    assert np.array_equal(before[hole == 0], after[hole == 0])
    assert not np.array_equal(before[5:14, 3:20], after[5:14, 3:20])
    assert sample(runs["masked"], "--input", path, "--out", tmp_path / "drawn", *options)[0] == 0
    drawn = np.asarray(Image.open(tmp_path / "drawn/cat.png"))
    assert 0.5 < (drawn == before).all(2).mean() < 0.9


def test_more_images_than_there_are_samples_are_told(runs, tmp_path):
    code, _, error = sample(runs["srgan"], "--out", tmp_path / "few", "--count", 2)
    assert (code, "they repeat" in error) == (0, False)
    there = Sampler(str(runs["srgan"])).pairs.samples
    code, _, error = sample(runs["srgan"], "--out", tmp_path / "many", "--count", there + 1)
    assert code == 0
    assert f"--count {there + 1}: there are {there} samples that conditions are made of, so they repeat" in error


def test_a_hole_is_drawn_by_the_name_of_the_file_wherever_it_lies(runs, tmp_path, monkeypatch):
    path = picture(tmp_path / "a/cat.png", 40, 36)
    for place in ("b/cat.png", "b/dog.png"):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate((path, "a/cat.png", "b", "b/../a")):
        assert sample(runs["masked"], "--input", place, "--out", f"out{number}")[0] == 0
    found = [(tmp_path / f"out{number}/cat.png").read_bytes() for number in range(4)]
    assert len(set(found)) == 1
    assert (tmp_path / "out2/dog.png").read_bytes() != found[0]
    drawn = load(str(runs["masked"])).sample(1, condition="b/cat.png", pictures=True)[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(Image.open("out0/cat.png")))


def test_an_exported_program_takes_small_pictures_alone(runs, tmp_path):
    sampler = Sampler(str(runs["srgan"]))
    small = torch.randint(0, 256, (3, 3, 16, 16)) / 127.5 - 1
    given = sampler.game.condition.completed({"low_resolution": small})
    expected = sampler.game.networks["generator"](given)
    write_program(sampler, tmp_path / "large.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "large.pt2").module()(small), expected)
    write_onnx(sampler, tmp_path / "large.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "large.onnx")
    assert [each.name for each in session.get_inputs()] == ["low_resolution"]
    (made,) = session.run(None, {"low_resolution": small.numpy()})
    assert np.abs(made - expected.detach().numpy()).max() < 1e-4


def test_masks_that_cannot_be_used_are_told(runs, tmp_path):
    path = picture(tmp_path / "cat.png", 32, 32)
    for name, size, level in (("none", 32, 0), ("all", 32, 255), ("small", 16, 255)):
        Image.new("L", (size, size), level).save(tmp_path / f"{name}.png")
    for name, words in (
        ("none", "the mask has no hole"),
        ("all", "the mask leaves no known pixel"),
        ("small", "the mask has 16x16 pixels, but the picture 32x32"),
        ("absent", "--mask"),
    ):
        mask = ["--mask", tmp_path / f"{name}.png"]
        code, _, error = sample(runs["masked"], "--input", path, *mask, "--out", tmp_path / "out")
        assert (code, words in error) == (2, True), error
    code, _, error = sample(runs["pix2pix"], "--input", path, "--mask", tmp_path / "all.png", "--out", tmp_path / "out")
    assert (code, "this run fills no holes; leave --mask out" in error) == (2, True)
    code, _, error = sample(runs["masked"], "--mask", tmp_path / "all.png", "--out", tmp_path / "out")
    assert (code, "--mask: is for pictures of --input" in error) == (2, True)


def test_a_folder_of_masks_has_one_for_each_picture(runs, tmp_path):
    for number, name in enumerate(("cats/a", "cats/b", "c")):
        picture(tmp_path / f"in/{name}.png", 40 + number, 33)
    for name, left in (("cats/a", 0), ("c", 20)):
        hole = np.zeros((33, 40 if name == "cats/a" else 42), np.uint8)
        hole[:, left : left + 9] = 255
        (tmp_path / "holes" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(hole).save(tmp_path / f"holes/{name}.png")
    code, _, said = sample(
        runs["masked"], "--input", tmp_path / "in", "--mask", tmp_path / "holes", "--out", tmp_path / "out"
    )
    assert code == 0
    assert f"--mask {tmp_path / 'holes'}: no mask for cats/b; add one under this name" in said
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["a.png", "c.png"]
    for name, left in (("cats/a", 0), ("c", 20)):
        before, after = (np.asarray(Image.open(tmp_path / place / f"{name}.png")) for place in ("in", "out"))
        same = (before == after).all(2).all(0)
        assert [number for number, each in enumerate(same) if not each] == list(range(left, left + 9))


def test_a_table_is_for_runs_over_tables(runs, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,\n")
    for name, words in (("masked", "this run fills holes of pictures"), ("srgan", "this run enlarges pictures")):
        code, _, error = sample(runs[name], "--input", tmp_path / "t.csv", "--out", tmp_path / "full.csv")
        assert (code, words in error) == (2, True), error


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "I;16"])
def test_pictures_of_all_kinds_are_taken(runs, tmp_path, mode):
    image = Image.fromarray(np.full((32, 32), 9, np.uint16)) if mode == "I;16" else Image.new(mode, (32, 32))
    image.save(tmp_path / "a.png")
    assert sample(runs["pix2pix"], "--input", tmp_path / "a.png", "--out", tmp_path / "out")[0] == 0


def test_a_turned_picture_gives_a_turned_image(runs, tmp_path):
    picture(tmp_path / "in/a.png", 40, 64, orientation=6)  # The camera was turned: it is seen as 64x40.
    upright = Image.open(tmp_path / "in/a.png").transpose(Image.Transpose.ROTATE_270)
    upright.save(tmp_path / "in/b.png")
    assert sample(runs["pix2pix"], "--input", tmp_path / "in", "--out", tmp_path / "out")[0] == 0
    turned, straight = (np.asarray(Image.open(tmp_path / f"out/{name}.png")) for name in "ab")
    assert turned.shape == (40, 64, 3)
    assert (turned == straight).all()


def test_a_network_that_takes_the_size_sees_the_whole_picture(runs):
    sampler = Sampler(str(runs["pix2pix"]))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 1), np.uint8)
    (image,) = Translator(sampler, 0, False).images("it", pixels, 1)
    given = {"source": torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1}
    noise = translation.KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float32).under("input")
    with torch.inference_mode():
        expected = sampler.game.sample(sampler.game.networks, 1, noise, given)[0]
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


class Repeated:
    """In place of a game: an image is its picture, each pixel repeated, so that tiles must blend to it exactly."""

    factor = 1

    def sample(self, networks, count, noise, given):
        return torch.nn.functional.interpolate(given["source"].expand(-1, 3, -1, -1), scale_factor=self.factor)


@pytest.mark.parametrize("name", ["pix2pix", "r3gan"])
@pytest.mark.parametrize("shape", [(32, 32), (100, 47), (33, 129)])
@pytest.mark.parametrize(("resize", "factor"), [(False, 1), (False, 2), (True, 1)])
def test_tiles_and_padding_leave_no_trace(runs, monkeypatch, name, shape, resize, factor):
    monkeypatch.setattr(translation, "LARGEST", 64)
    translator = Translator(Sampler(str(runs[name])), 0, resize)
    condition, translator.factor = translator.game.condition, factor
    translator.game = type("Game", (Repeated,), {"condition": condition, "networks": {}, "factor": factor})()
    pixels = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.uint8)[:, :, None]  # Smooth.
    (image,) = translator.images("it", pixels, 1)
    expected = (torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1).expand(3, -1, -1)
    expected = expected.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    torch.testing.assert_close(image, expected, rtol=0, atol=0.2 if resize else 1e-5)


@pytest.mark.parametrize(("side", "tile"), [(32, 32), (33, 32), (100, 32), (1000, 64), (57, 32), (7, 32)])
def test_tiles_cover_a_side_and_overlap(side, tile):
    found = starts(side, tile)
    assert found[0] == 0
    assert found[-1] == max(side - tile, 0)
    assert all(0 < after - before <= tile - tile // 4 for before, after in pairwise(found))


@pytest.mark.parametrize("name", ["pix2pix", "r3gan"])
def test_several_outputs_differ_and_depend_on_the_seed_alone(runs, tmp_path, name):
    path = picture(tmp_path / "in/cat.png", 40, 32)
    other = picture(tmp_path / "in/dog.png", 32, 32)

    def drawn(where, *options):
        assert sample(runs[name], "--out", tmp_path / where, *options)[0] == 0
        return {file.name: file.read_bytes() for file in (tmp_path / where).iterdir()}

    one = drawn("one", "--input", path, "--count", 3)
    assert sorted(one) == ["cat-0.png", "cat-1.png", "cat-2.png"]
    assert len(set(one.values())) == 3
    both = drawn("both", "--input", tmp_path / "in", "--count", 2)
    assert sorted(both) == ["cat-0.png", "cat-1.png", "dog-0.png", "dog-1.png"]
    assert both["cat-1.png"] == one["cat-1.png"]
    assert drawn("single", "--input", path)["cat.png"] == one["cat-0.png"]
    assert drawn("seed", "--input", other, "--seed", 1)["dog.png"] != both["dog-0.png"]


def test_folders_within_a_folder_are_kept_and_what_is_no_picture_is_named(runs, tmp_path):
    picture(tmp_path / "in/pets/cat.webp", 32, 32)
    picture(tmp_path / "in/small.png", 20, 40)
    (tmp_path / "in/notes.txt").write_text("no picture")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG")
    code, _, said = sample(runs["r3gan"], "--input", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 0
    assert [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")] == [Path("pets/cat.png")]
    lines = said.splitlines()
    assert len(lines) == 3
    assert any("notes.txt: not a picture" in line for line in lines)
    assert any("broken.png: not an image format" in line for line in lines)
    assert any("small.png: 20x40 pixels, but the network takes at least 32x32" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--input", "none.png"], "--input none.png: no such file or folder"),
        (["--input", "empty"], "--input empty: no picture in this folder; it is empty"),
        (["--input", "text"], "--input text: no picture in this folder; text/a.txt: not a picture"),
        (["--input", "text/a.txt"], "--input text/a.txt: not an image format that Pillow can read; give a picture"),
        (["--input", "twice"], "a.jpg and a.png have one name; rename one"),
        (["--input", "small.png"], "small.png: 31x40 pixels, but the network takes at least 32x32; give a larger"),
        (["--input", "cat.png", "--grid"], "--grid: does not go with --input"),
        (["--input", "cat.png", "--label", "0"], "--label: does not go with --input"),
        (["--input", "cat.png", "--out", "a.png"], "--out a.png: with --input it is a folder"),
        (["--input", "cat.png", "--out", "."], "would overwrite cat.png"),
        (["--resize"], "--resize: is for pictures of --input"),
    ],
)
def test_faults_are_one_line_each(runs, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "small.png", 31, 40)
    for name in ("cat.png", "twice/a.png", "twice/a.jpg"):
        picture(tmp_path / name, 32, 32)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("no picture")
    code, _, said = sample(runs["pix2pix"], *(["--out", "out"] if "--out" not in options else []), *options)
    assert code == 2
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_small_picture_is_enlarged_on_request(runs, tmp_path):
    path = picture(tmp_path / "small.png", 20, 31)
    assert sample(runs["r3gan"], "--input", path, "--out", tmp_path / "out", "--resize")[0] == 0
    assert Image.open(tmp_path / "out/small.png").size == (20, 31)


def test_a_run_without_a_picture_says_so_whatever_the_picture(runs, tmp_path, monkeypatch):
    path = picture(tmp_path / "small.png", 20, 20)
    sampler = Sampler(str(runs["pix2pix"]))
    sampler.game = type("Game", (), {"condition": UNCONDITIONAL, "networks": sampler.game.networks})()
    monkeypatch.setattr("ganrun.inference.sampling.Sampler", lambda run: sampler)
    code, _, said = sample("run", "--input", path, "--out", tmp_path / "out")
    assert (code, "small.png: this run has no condition to give; leave it out" in said) == (2, True)


def test_without_noise_there_is_one_output(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("ganrun.models.pix2pix.dropout", lambda x, *rest: x)
    path = picture(tmp_path / "cat.png", 32, 32)
    code, _, said = sample(runs["pix2pix"], "--input", path, "--out", tmp_path / "out", "--count", 2)
    assert (code, "no noise, so all images would be the same" in said) == (2, True)
