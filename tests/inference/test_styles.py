"""Runs of StyleGAN2: truncation, w and w+ in projection and painting, exported programs."""

import base64
import json

import numpy as np
import onnxruntime
import pytest
import torch

from ganrun.errors import UserError
from ganrun.inference.exporting import write_onnx, write_program
from ganrun.inference.latent_spaces import space_of
from ganrun.inference.paint.edits import Edit, Point, Sample, Walk, png_of_drawing
from ganrun.inference.paint.painters import open_painter
from ganrun.inference.projection import Budget, Search, projector_of
from ganrun.inference.projection_terms import Target, Weights
from ganrun.inference.sampling import Sampler
from tests.conftest import config_of, small_run, write_data
from tests.families import values_of
from tests.ranks import run_folder, run_ranks
from tests.recorded import ganrun

LAYERS, SIZE = 4, 8
"""Layers that take a w, and pixels a side, of the small runs."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the runs by name: stylegan2, stylegan2_labels and dcgan."""
    place, found = tmp_path_factory.mktemp("styles"), {}
    for name in ("stylegan2", "stylegan2_labels", "dcgan"):
        size = 16 if name == "dcgan" else SIZE
        values = values_of(name, small_run(place, write_data(place / f"data-{name}", image_size=size)))
        config = config_of(values, run__name=name, train__total_images=12, train__precision="float32")
        run_ranks(config, 1, place / f"meeting-{name}")
        found[name] = str(run_folder(config))
    return found


def test_truncation_draws_images_nearer_to_the_mean_one(runs):
    sampler = Sampler(runs["stylegan2"])
    images = next(sampler.draw(16, seed=1))
    assert torch.equal(next(sampler.truncated(1.0).draw(16, seed=1)), images)
    spread = [next(sampler.truncated(psi).draw(16, seed=1)).std(0).mean() for psi in (0.0, 0.5)]
    assert spread[0] < 0.02 * images.std(0).mean()  # Noise inputs are left.
    assert spread[0] < spread[1] < images.std(0).mean()
    assert torch.equal(next(sampler.draw(16, seed=1)), images)


def test_noise_within_the_network_is_still_while_one_walks(runs):
    sampler = Sampler(runs["stylegan2"])
    one, same, other = sampler.images(sampler.z(0, 2, 0)[[0, 0, 1]], {})
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_truncation_as_a_command(runs, tmp_path):
    out = tmp_path / "grid.png"
    assert ganrun("sample", runs["stylegan2"], "--out", out, "--count", 4, "--truncation", 0.5)[0] == 0
    assert out.is_file()
    code, _, said = ganrun("sample", runs["dcgan"], "--out", out, "--truncation", 0.5)
    assert (code, said.count("\n")) == (2, 1)
    assert "model.name: dcgan has no w to truncate" in said


@pytest.mark.parametrize("run", ["stylegan2", "stylegan2_labels"])
def test_w_and_its_images_are_those_of_z(runs, run):
    sampler = Sampler(runs[run])
    given = {"label": torch.arange(5) % 3} if sampler.classes else {}
    z, w, each = (space_of(sampler, name) for name in ("z", "w", "w+"))
    images = z.images(z.draw(5, 3), given)
    for space, copies in ((w, 1), (each, LAYERS)):
        drawn = space.draw(5, 3, given)
        assert drawn.shape == (5, space.size) == (5, copies * sampler.config.model.latent_size)
        torch.testing.assert_close(space.images(drawn, given), images)
        torch.testing.assert_close(space.allowed(drawn), drawn)
        far = space.allowed(100 * drawn)
        torch.testing.assert_close(space.allowed(far), far)
        assert far.abs().max() < drawn.abs().max() * 10
        walk = space.between(drawn[0], drawn[1], 3)
        torch.testing.assert_close(walk, torch.stack([drawn[0], (drawn[0] + drawn[1]) / 2, drawn[1]]))
    assert space_of(sampler).name == "w"
    # The noise within the network is the same for each latent, in a batch of any size.
    drawn = w.draw(5, 3, given)
    torch.testing.assert_close(w.images(drawn[4:], given), images[4:])


def test_a_generated_image_is_found_again(runs):
    sampler = Sampler(runs["stylegan2"])
    target = Target(space_of(sampler).images(space_of(sampler).draw(1, 99), {})[0], torch.ones(1, SIZE, SIZE))
    for name in ("w", "w+"):
        projector = projector_of(sampler, name)
        found = projector.project(Search(target, Weights()), Budget(steps=40, candidates=2))
        assert float(found.errors[0]) < 0.3 * float(found.first_errors[0])
    with pytest.raises(UserError, match=r"space w: model.name: dcgan has no styles; take z"):
        projector_of(Sampler(runs["dcgan"]), "w")


def test_project_as_a_command(runs, tmp_path):
    picture = tmp_path / "mine.png"
    ganrun("sample", runs["stylegan2"], "--out", tmp_path / "drawn", "--count", 1)
    (tmp_path / "drawn" / "000000.png").rename(picture)
    short = ("--input", picture, "--out", tmp_path / "found", "--steps", 3)
    for options, space, numbers in (((), "w", 1), (("--space", "w+"), "w+", LAYERS), (("--space", "z"), "z", 1)):
        assert ganrun("project", runs["stylegan2"], *short, *options)[0] == 0
        record = json.loads((tmp_path / "found" / "mine.json").read_text())
        assert (record["space"], len(record["latent"])) == (space, numbers * 8)
    code, _, said = ganrun("project", runs["stylegan2"], *short, "--space", "w", "--encoder", "any")
    assert (code, "gives a z to begin with" in said) == (2, True)


def test_painting_searches_w(runs):
    painter = open_painter(Sampler(runs["stylegan2_labels"]))
    assert painter.projector.space.name == "w"
    begin = painter.sample(Sample(seed=1, label=2))["candidates"]
    assert {each["label"] for each in begin} == {2}
    pixels = np.full((SIZE, SIZE, 1), 255, np.uint8)
    drawn = np.zeros((SIZE, SIZE), np.float32)
    drawn[:4] = 1
    edit = Edit(drawing=png_of_drawing((pixels, drawn)), start=Point(latent=begin[0]["latent"], label=2), steps=3)
    found = painter.answer(edit, (pixels, drawn), lambda share, image: True)["candidates"]
    assert (found[0]["space"], len(found[0]["latent"])) == ("w", 8)
    ends = [Point(latent=each["latent"], label=each["label"]) for each in found[:2]]
    walked = painter.walk(Walk(begin=ends[0], end=ends[1], steps=4))
    assert len(walked["images"]) == 4
    assert walked["images"][0] == found[0]["image"]
    assert base64.b64decode(walked["images"][3]).startswith(b"\x89PNG")


def test_programs_give_the_images_of_the_run(runs, tmp_path):
    sampler = Sampler(runs["stylegan2_labels"])
    with torch.no_grad():
        for name, parameter in sampler.game.networks["generator"].named_parameters():
            if name.endswith("strength"):
                parameter.zero_()  # Programs draw noise from torch's stream, ONNX models from their own.
    z, label = sampler.z(0, 5, seed=3), torch.tensor([2, 0, 1, 1, 2])
    expected = sampler.images(z, {"label": label})
    write_program(sampler, tmp_path / "g.pt2")
    write_onnx(sampler, tmp_path / "g.onnx")
    program = torch.export.load(tmp_path / "g.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
    for count in (1, 5):
        torch.testing.assert_close(program(z[:count], label[:count]), expected[:count], rtol=0, atol=1e-5)
        (images,) = session.run(["images"], {"z": z[:count].numpy(), "label": label[:count].numpy()})
        np.testing.assert_allclose(images, expected[:count].numpy(), rtol=0, atol=1e-4)
