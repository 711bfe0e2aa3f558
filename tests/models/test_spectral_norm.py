"""Spectral norm: the largest singular value, its gradient, and one step of power iteration per turn."""

import copy

import pytest
import torch
from torch import nn

from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.games.game import Game, Loss, Player
from ganrun.models.spectral_norm import SpectralNorm, normalise_spectrally
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.player_step import PlayerStep
from tests.models.pairs import CLASSES, pair

LAYERS = [
    lambda: nn.Conv2d(3, 5, 3, 1, 1),
    lambda: nn.Linear(7, 4),
    lambda: nn.Embedding(6, 5),
]


def normed(make, seed=0):
    torch.manual_seed(seed)
    return SpectralNorm(make()).double()


def largest(layer):
    return torch.linalg.matrix_norm(layer.layer.weight.flatten(1), 2)


@pytest.mark.parametrize("make", LAYERS)
def test_sigma_comes_to_the_largest_singular_value(make):
    layer = normed(make)
    for _ in range(500):
        layer.iterate()
    torch.testing.assert_close(layer.sigma(), largest(layer), rtol=1e-10, atol=0)


@pytest.mark.parametrize("make", LAYERS)
def test_it_is_near_from_the_beginning_and_never_above(make):
    for seed in range(5):
        layer = normed(make, seed)
        assert 0.9 * largest(layer) < layer.sigma() <= largest(layer) * (1 + 1e-6)


def test_a_step_is_the_papers():
    layer = normed(LAYERS[1])
    weight, u = layer.layer.weight.detach(), layer.u.clone()
    layer.iterate()
    v = weight.T @ u / (weight.T @ u).norm()
    torch.testing.assert_close(layer.v, v)
    torch.testing.assert_close(layer.u, weight @ v / (weight @ v).norm())


@pytest.mark.parametrize("make", LAYERS)
def test_once_settled_outputs_and_gradients_are_those_of_pytorch(make):
    ours = normed(make)
    theirs = nn.utils.parametrizations.spectral_norm(copy.deepcopy(ours.layer), n_power_iterations=500)
    for _ in range(500):
        ours.iterate()
    x = torch.tensor([0, 3, 5]) if isinstance(ours.layer, nn.Embedding) else torch.rand(2, 3, 7, 7).double()
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.layer.weight.grad, theirs.parametrizations.weight.original.grad)


def test_the_gradient_of_sigma_is_the_product_of_the_vectors():
    layer = normed(LAYERS[0])
    layer.sigma().backward()
    torch.testing.assert_close(layer.layer.weight.grad.flatten(1), torch.outer(layer.u, layer.v))


def test_the_gradient_passes_through_sigma():
    layer = normed(LAYERS[1])
    x = torch.rand(2, 7, dtype=torch.float64)

    def outputs(weight):
        sigma = layer.u @ weight @ layer.v
        return x @ (weight / sigma).T

    weight = layer.layer.weight.detach().clone().requires_grad_()
    outputs(weight).square().sum().backward()
    layer.layer.bias.data.zero_()
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer.layer.weight.grad, weight.grad)


def test_no_pass_moves_the_vectors():
    layer = normed(LAYERS[0])
    before = layer.u.clone(), layer.v.clone()
    layer(torch.rand(2, 3, 4, 4).double())
    layer.eval()(torch.rand(2, 3, 4, 4).double())
    assert torch.equal(layer.u, before[0])
    assert torch.equal(layer.v, before[1])


def test_a_copy_is_alike_and_goes_its_own_way():
    layer = normed(LAYERS[0])
    layer.layer.weight.data.normal_()
    copied, x = copy.deepcopy(layer), torch.rand(2, 3, 4, 4).double()
    assert torch.equal(copied(x), layer(x))
    before = layer.u.clone()
    copied.iterate()
    assert torch.equal(layer.u, before)
    assert not torch.equal(copied.u, before)


def test_the_vectors_are_part_of_the_state():
    layer, other = normed(LAYERS[0], 0), normed(LAYERS[0], 1)
    other.load_state_dict(layer.state_dict())
    x = torch.rand(2, 3, 4, 4).double()
    assert {"u", "v", "layer.weight", "layer.bias"} == layer.state_dict().keys()
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("name", ["dcgan", "resnet", "mlp"])
def test_all_layers_of_the_discriminator_are_normalised_and_none_of_the_generator(name):
    generator, discriminator = pair(name, classes=CLASSES, spectral_norm=True)
    kinds = nn.Conv2d | nn.Linear | nn.Embedding
    inside = [module.layer for module in discriminator.modules() if isinstance(module, SpectralNorm)]
    assert inside == [module for module in discriminator.modules() if isinstance(module, kinds)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in discriminator.modules())
    assert not any(isinstance(module, SpectralNorm) for module in generator.modules())


def test_a_network_is_bound_by_its_layers():
    """|f(x) - f(y)| <= |x - y| where every layer's largest singular value is 1 (eq. 7)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1)).double()
    normalise_spectrally(network)
    for module in network.modules():
        for _ in range(200 * isinstance(module, SpectralNorm)):
            module.iterate()
    x, y = torch.randn(2, 1000, 5, dtype=torch.float64) * 10
    assert ((network(x) - network(y)).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-9)).all()


class Judge(Player):
    name = "judge"

    def __init__(self, network):
        super().__init__(judge=network)

    def forward(self, batch, noise, others):
        passes = [others["other"](batch["image"]), *(self.owned["judge"](batch["image"]) for _ in range(2))]
        return Loss(sum(each.square().mean() for each in passes), {})


@pytest.mark.parametrize("slots", [1, 3])
def test_a_turn_takes_one_step_whatever_its_slots_and_passes_and_none_for_others(slots):
    judge, other, alone = normed(LAYERS[1]), normed(LAYERS[1], 1), normed(LAYERS[1])
    game = Game({"judge": judge, "other": other}, (Judge(judge),), (), 1, sample=None)
    player_step = PlayerStep(game.players[0], game, PlayerOptimizerConfig(), Slots(slots), bf16=False)
    before = other.u.clone()
    batches = [{"image": torch.rand(4, 7, dtype=torch.float64)} for _ in range(slots)]
    noises = [KeyedNoise(0, 0, 0, slot, torch.device("cpu"), torch.float64) for slot in range(slots)]
    player_step.step(batches, noises, 1e-3)
    alone.iterate()
    assert torch.equal(judge.u, alone.u)
    assert torch.equal(judge.v, alone.v)
    assert torch.equal(other.u, before)
