"""A run from Python: the same images, weights and scores as by the commands."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import ganrun
from ganrun import export, project, sample
from ganrun.api.pictures import pixels_of
from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.run_config import settle, write_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from tests.conditional import conditional
from tests.conftest import config_of, small_run
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def folder(place, data_folder, extractor):
    """Folder of a run with class labels and scores."""
    values = conditional(small_run(place, data_folder))
    values["evaluate"] = {"every_images": 60, "samples": 24, "extractor": str(extractor), "metrics": ["kid"]}
    return trained(config_of(values, train__precision="float32", train__total_images=120), place / "meeting")


@pytest.fixture(scope="module")
def translating(place):
    """Folder of a run that translates pictures."""
    data = write_pairs(place / "pairs")
    values = paired(small_run(place, data), data, run={"name": "pairs"})
    return trained(config_of(values, train__precision="float32", train__total_images=24), place / "meeting2")


def trained(config, rendezvous):
    """Train in this process, and return the folder of the run."""
    folder = RunFolder(open_storage(str(run_folder(config))))
    spec = settle(config, folder)
    write_config(spec, folder)
    run_ranks(spec, 1, rendezvous)
    return run_folder(config)


@pytest.fixture
def run(folder):
    return ganrun.load(folder)


def test_projection_is_that_of_the_command(run, folder, tmp_path):
    (picture,) = run.sample(1, seed=9, label=1, pictures=True)
    picture.save(tmp_path / "mine.png")
    about = ["--label", "1", "--seed", "2", "--steps", "5", "--candidates", "2", "--seconds", "10000"]
    where = ["--input", str(tmp_path / "mine.png"), "--out", str(tmp_path / "found")]
    assert project.main([str(folder), *where, *about]) == 0
    record = json.loads((tmp_path / "found/mine.json").read_text())
    for given in (tmp_path / "mine.png", picture, np.asarray(picture)):
        found = run.project(given, seed=2, label=1, steps=5, candidates=2)
        assert found.latents[0].tolist() == pytest.approx(record["latent"], rel=1e-5)
        assert float(found.errors[0]) == pytest.approx(record["error"], rel=1e-5)
        assert found.images.shape == (2, 1, 16, 16)


def test_samples_are_those_of_the_command(run, folder, tmp_path):
    assert sample.main([str(folder), "--out", str(tmp_path / "all"), "--count", "7", "--seed", "3"]) == 0
    assert sample.main([str(folder), "--out", str(tmp_path / "one"), "--count", "2", "--label", "1"]) == 0
    for name, pictures in (
        ("all", run.sample(7, seed=3, pictures=True)),
        ("one", run.sample(2, label=1, pictures=True)),
    ):
        drawn = [np.asarray(Image.open(path)) for path in sorted((tmp_path / name).iterdir())]
        np.testing.assert_array_equal(np.stack([np.asarray(each) for each in pictures]), np.stack(drawn))
    images = run.sample(7, seed=3)
    assert images.shape == (7, 1, 16, 16)
    assert -1 <= images.min() < images.max() <= 1


def test_the_generator_is_a_module(run):
    assert isinstance(run.generator, torch.nn.Module)
    sampler = run._sampler
    z, labels = sampler.z(0, 6, seed=3), torch.arange(6) % 3
    torch.testing.assert_close(run.generator(z, labels), run.sample(6, seed=3))
    before = run.sample(6)
    run.generator.float()
    assert torch.equal(run.sample(6), before)


def test_the_generator_has_no_weights_of_the_discriminator(run):
    generator = run._sampler.game.networks["generator"]
    assert [each.shape for each in run.generator.parameters()] == [each.shape for each in generator.parameters()]


def test_the_generator_follows_its_inputs_to_a_device(translating):
    generator = ganrun.load(translating).generator.to("meta")  # Its dropout draws there, too.
    images = generator(torch.zeros(2, 1, 32, 32, device="meta"))
    assert (images.device.type, images.shape) == ("meta", (2, 3, 32, 32))


def test_curve_and_scores(run, folder):
    lines, _ = read_curve(open_storage(str(folder)))
    curve = run.curve()
    assert list(curve["images"]) == sorted({line["images"] for line in lines})
    for line in lines:  # Ticks and scores of the same images are one row.
        row = curve.set_index("images").loc[line["images"]]
        kept = {name: value for name, value in line.items() if name not in ("images", "time") and value is not None}
        assert {name: row[name] for name in kept} == kept
    assert curve["loss/generator"].notna().all()
    assert {"loss/generator", "frechet_distance", "kid"} <= set(curve.columns)
    scores = run.scores()
    assert scores["images"] == run.config.train.total_images == 120
    assert scores["kid"] == curve["kid"].dropna().iloc[-1]
    assert scores["name"].endswith("n=24)")


def test_a_checkpoint_and_exported_weights_are_loaded_too(run, folder, tmp_path):
    weights = tmp_path / "card" / "model.safetensors"
    assert export.main([str(folder), "--out", str(weights)]) == 0
    (weights.parent / "README.md").write_text("---\n")
    newest = max((folder / "checkpoints").iterdir())
    for where in (newest, weights, weights.parent):
        other = ganrun.load(where)
        assert torch.equal(other.sample(5, seed=2), run.sample(5, seed=2))
        assert other.config.model == run.config.model
        with pytest.raises(UserError, match="without a curve; load the run"):
            other.curve()
    shutil.copy(weights, folder / "kept.safetensors")  # A run stays a run.
    assert torch.equal(ganrun.load(folder).sample(5, seed=2), run.sample(5, seed=2))
    (folder / "kept.safetensors").unlink()


def test_ones_own_picture_is_the_condition(translating, tmp_path):
    run = ganrun.load(translating)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    assert sample.main([str(translating), "--input", str(tmp_path / "own.png"), "--out", str(tmp_path / "out")]) == 0
    drawn = np.asarray(Image.open(tmp_path / "out/own.png"))
    clear = Image.merge("LA", (Image.fromarray(pixels), Image.new("L", (36, 40), 255)))
    for condition in (tmp_path / "own.png", Image.fromarray(pixels), pixels, clear):
        (picture,) = run.sample(1, condition=condition, pictures=True)
        np.testing.assert_array_equal(np.asarray(picture), drawn)
    assert run.sample(2).shape == (2, 3, 32, 32)  # Conditions of the data.


def test_a_pillow_image_is_read_as_its_file_is(tmp_path):
    levels = np.arange(40 * 36, dtype=np.uint16).reshape(40, 36) * 40
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(levels).save(tmp_path / "16-bit.png")
    Image.fromarray((levels // 256).astype(np.uint8)).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("16-bit.png", "turned.png"):
        assert np.array_equal(pixels_of(Image.open(tmp_path / name)), pixels_of(tmp_path / name))
    with pytest.raises(UserError, match="condition: floating-point pixels"):
        pixels_of(Image.open(tmp_path / "float.tif"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 7}, "labels of .* are 0 to 2"),
        ({"count": 0}, "count: 0 is not allowed; give at least 1"),
        ({"condition": "own.png"}, "own.png: No such file or directory; give a picture"),
        ({"condition": np.zeros((8, 8, 3), np.uint8)}, "condition: .*class"),
        ({"condition": np.zeros((8, 8, 3))}, "condition: float64 .8, 8, 3. is no picture; give uint8"),
        ({"condition": [1, 2]}, "condition: a list, but this run takes one picture"),
        ({"condition": "own.png", "label": 1}, "label: 1 does not go with a picture"),
        ({"mask": "own.png"}, "mask: is the hole in a picture of your own"),
    ],
)
def test_what_a_run_cannot_draw_is_said_in_a_line(run, options, message):
    with pytest.raises(UserError, match=message) as raised:
        run.sample(**options)
    assert "\n" not in str(raised.value)


def test_places_of_another_layout_are_said_in_a_line(tmp_path, folder):
    with pytest.raises(UserError, match="neither a run with a checkpoint nor a checkpoint"):
        ganrun.load(tmp_path / "nothing")
    foreign = tmp_path / "hub"
    foreign.mkdir()
    save_file({"weight": torch.zeros(2)}, foreign / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors: no config of ganrun in its metadata .*; give a file of"):
        ganrun.load(foreign)
    save_file({"weight": torch.zeros(2)}, foreign / "other.safetensors")
    with pytest.raises(UserError, match=r"2 files of weights, model.safetensors, other.safetensors; name one"):
        ganrun.load(foreign)
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file"):
        ganrun.load(foreign / "gone.safetensors")
    save_file({"weight": torch.zeros(2)}, foreign / "changed.safetensors", _metadata(folder))
    with pytest.raises(RunError, match="is of another network than its config describes"):
        ganrun.load(foreign / "changed.safetensors").sample(1)


def _metadata(folder):
    return {"config": ganrun.load(folder).config.model_dump_json()}


def test_a_run_without_scores_says_so(translating):
    with pytest.raises(RunError, match=r"no scores yet; they come every evaluate\.every_images"):
        ganrun.load(translating).scores()
