"""A round of the GAN against a textbook implementation; a turn updates only its own networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ganrun.config.registry import LOSSES
from ganrun.games.build import build_game
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of

CPU = torch.device("cpu")


def play_of(values, **changes):
    config = config_of(values, **changes)
    return new_state(config, CPU, Slots(config.slots))


def bytes_of(seed, size=12):
    return torch.randint(0, 256, (size, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Source:
    """A fresh batch at every call, and a note of each."""

    def __init__(self, slots=1, size=12):
        self.slots, self.size, self.given = slots, size, []

    def __call__(self):
        images = [bytes_of(100 * len(self.given) + slot, self.size) for slot in range(self.slots)]
        self.given.append(images)
        return [{"image": image} for image in images]


def clone(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(network, before):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def plain(network):
    """A copy with PyTorch's own batch normalisation."""
    network = copy.deepcopy(network).requires_grad_(True)
    for place, layer in enumerate(network.layers):
        if isinstance(layer, SlotBatchNorm2d):
            network.layers[place] = nn.BatchNorm2d(layer.num_features).double()
            network.layers[place].load_state_dict(layer.state_dict())
    return network


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_is_that_of_the_textbook(values, rounds):
    """Goodfellow et al. 2014, algorithm 1, with the non-saturating loss, as every tutorial writes it."""
    state = play_of(values, data__slots=1, optimizer__discriminator={"learning_rate": 1e-3})
    generator, discriminator = plain(state.game.networks["generator"]), plain(state.game.networks["discriminator"])
    generator_adam = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    ones, zeros = torch.ones(12, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    source = Source()
    for number in range(rounds):
        state.round(source)

        real = source.given[number][0].double() / 127.5 - 1
        z = KeyedNoise(0, 0, 12 * number, 0, CPU, torch.float64).normal(12, 8, name="discriminator/z")
        discriminator_adam.zero_grad()
        fake = generator(z).detach()
        (bce(discriminator(real), ones) + bce(discriminator(fake), zeros)).backward()
        gradients = [parameter.grad.clone() for parameter in discriminator.parameters()]
        discriminator_adam.step()

        z = KeyedNoise(0, 0, 12 * number + 12, 0, CPU, torch.float64).normal(12, 8, name="generator/z")
        generator_adam.zero_grad()
        bce(discriminator(generator(z)), ones).backward()
        generator_adam.step()

    ours = state.game.networks
    for parameter, gradient in zip(ours["discriminator"].parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-5)
    for mine, tutorial_step in ((ours["generator"], generator), (ours["discriminator"], discriminator)):
        for (name, parameter), expected in zip(mine.named_parameters(), tutorial_step.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-5, msg=name)
    for parameter, expected in zip(ours["generator"].parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mover", ["discriminator", "generator"])
@pytest.mark.parametrize("loss", ["non_saturating", "wasserstein"])
def test_a_turn_leaves_the_other_players_weights_and_buffers_untouched(values, mover, loss):
    state = play_of(values, objective__loss=loss)
    state.round(Source(6, 2))  # so that moments and running statistics are no longer at their beginning
    before = {name: clone(network) for name, network in state.game.networks.items()}
    (player_step,) = [player_step for player_step in state.player_steps if player_step.player.name == mover]
    batches = [state.normalise(batch) for batch in Source(6, 2)()]
    player_step.step(batches, list(state._noises(0, 0)), torch.tensor(1e-3))
    (still,) = set(before) - {mover}
    assert_same(state.game.networks[still], before[still])
    assert all(not norm.recorded for norm in state.game.networks[still].modules() if isinstance(norm, SlotBatchNorm2d))
    moved = state.game.networks[mover]
    assert not any(
        torch.equal(parameter, before[mover][name])
        for name, parameter in moved.named_parameters()
        if parameter.grad.abs().sum()
    )


def test_running_statistics_come_from_a_players_own_turns(values):
    """The discriminator's see real and generated images of its turn; the generator's its own turn's."""
    state = play_of(values, data__slots=1)
    source = Source()
    first = {name: plain(network).layers for name, network in state.game.networks.items()}
    state.round(source)
    z = KeyedNoise(0, 0, 12, 0, CPU, torch.float64).normal(12, 8, name="generator/z")
    features = first["generator"][0](z[:, :, None, None])
    found = state.game.networks["generator"].layers[1].running_mean
    torch.testing.assert_close(found, 0.1 * features.mean((0, 2, 3)))


@pytest.mark.parametrize("turns", [1, 2])
def test_the_discriminators_running_statistics_move_once_a_round_by_the_mean_of_all_its_passes(values, turns):
    state = play_of(values, objective__discriminator_turns=turns, optimizer__discriminator={"learning_rate": 1e-30})
    first = plain(state.game.networks["discriminator"]).layers[:3]
    generator = plain(state.game.networks["generator"])
    source = Source(6, 2)
    state.round(source)
    means = []
    for turn, given in enumerate(source.given):
        for slot, real in enumerate(given):
            z = KeyedNoise(0, 0, 12 * turn, slot, CPU, torch.float64, turn).normal(2, 8, name="discriminator/z")
            means += [first(image).mean((0, 2, 3)) for image in (real.double() / 127.5 - 1, generator(z))]
    norm = state.game.networks["discriminator"].layers[3]
    torch.testing.assert_close(norm.running_mean, 0.1 * torch.stack(means).mean(0))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_each_discriminator_turn_takes_a_fresh_batch(values, turns):
    state = play_of(values, objective__discriminator_turns=turns)
    seen = []
    for player_step in state.player_steps:
        take = player_step.backward
        player_step.backward = lambda batches, noises, reduced, player_step=player_step, take=take: (
            seen.append((player_step.player.name, batches[0]["image"].clone(), noises[0])),
            take(batches, noises, reduced),
        )[1]
    source = Source(6, 2)
    state.round(source)
    assert [name for name, _, _ in seen] == ["discriminator"] * turns + ["generator"]
    assert len(source.given) == turns
    for number, ((_, image, noise), given) in enumerate(zip(seen, source.given, strict=False)):
        torch.testing.assert_close(image, given[0].double() / 127.5 - 1)
        assert noise.images == 12 * number
    assert state.images == 12 * turns


def test_slots_of_a_batch_see_different_noise(values):
    state = play_of(values)
    drawn = [noise.normal(2, 8, name="generator/z") for noise in state._noises(0, 0)]
    assert len({tensor.sum().item() for tensor in drawn}) == 6


def test_the_scores_are_the_means_of_the_logits(values):
    state = play_of(values, data__slots=1)
    batch = state.normalise(Source()()[0])
    noise = next(state._noises(0, 0))
    networks = state.game.networks
    loss = state.game.players[0](batch, noise, {"generator": networks["generator"]})
    fake = networks["generator"](noise.normal(12, 8, name="discriminator/z"))
    assert loss.parts["logit/real"].item() == pytest.approx(networks["discriminator"](batch["image"]).mean().item())
    assert loss.parts["logit/fake"].item() == pytest.approx(networks["discriminator"](fake).mean().item())
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_moves_both_players(values, loss):
    state = play_of(values, objective__loss=loss)
    before = {name: clone(network) for name, network in state.game.networks.items()}
    state.round(Source(6, 2))
    for name, network in state.game.networks.items():
        assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
        assert not torch.equal(network.layers[0].weight, before[name]["layers.0.weight"])


def test_bytes_become_numbers_from_minus_1_to_1(values):
    state = play_of(values)
    batch = {"image": torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1), "label": torch.tensor([2])}
    placed = state.normalise(batch)
    assert placed["image"].flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])
    assert placed["image"].dtype == torch.float64
    assert placed["label"].tolist() == [2]


def test_the_average_follows_the_generator_alone(values):
    state = play_of(values, train__average_half_life_images=0)
    state.round(Source(6, 2))
    assert state.ema.keys() == {"generator"}
    assert_same(state.ema["generator"].network, clone(state.game.networks["generator"]))
    assert state.ema_networks["generator"] is state.ema["generator"].network
    assert state.ema_networks["discriminator"] is state.game.networks["discriminator"]


def test_networks_are_those_of_the_seed(values):
    first, again, other = (build_game(config_of(values, run__seed=seed), CPU) for seed in (3, 3, 4))
    assert_same(again.networks["generator"], clone(first.networks["generator"]))
    assert not torch.equal(first.networks["generator"].layers[0].weight, other.networks["generator"].layers[0].weight)
