"""One player's turn: only its own networks move, by the mean over the slots, or nothing does."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.games.build import build_game
from ganrun.games.game import Game, Loss, Player
from ganrun.games.latent import Latent
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.player_step import PlayerStep, learning_rate
from tests.conftest import config_of

CPU = torch.device("cpu")


class Line(Player):
    """Fits w x = 1 by least squares; `other` enters its loss but is not its own."""

    name = "line"

    def __init__(self):
        super().__init__(line=nn.Linear(3, 1, bias=False).double())

    def forward(self, batch, noise, others):
        error = self.owned["line"](batch["image"]) + others["other"](batch["image"]) - 1
        return Loss(error.square().mean(), {})


def seat_of(slots=1, **settings):
    torch.manual_seed(0)
    player, other = Line(), nn.Linear(3, 1, bias=False).double()
    game = Game({"line": player.owned["line"], "other": other}, (player,), (), Latent(1), sample=None)
    return PlayerStep(player, game, PlayerOptimizerConfig(**settings), Slots(slots), bf16=False)


def batches(slots, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return [{"image": torch.randn(4, 3, dtype=torch.float64, generator=stream)} for _ in range(slots)]


def turn(player_step, batches, rate=1e-3):
    noise = KeyedNoise(0, 0, 0, 0, CPU, torch.float64)
    return player_step.step(batches, [replace(noise, slot=slot) for slot in range(len(batches))], rate)


def state(player_step):
    """Weights, and the optimizer's moments and step count."""
    weights = {name: parameter.detach().clone() for name, parameter in player_step.parameters.items()}
    return [weights, copy.deepcopy(list(player_step.optimizer.state.values()))]


def test_the_gradient_is_the_mean_over_slots():
    whole, cut = seat_of(slots=1), seat_of(slots=3)
    slots = batches(3)
    turn(whole, [{"image": torch.cat([batch["image"] for batch in slots])}])
    turn(cut, slots)
    for name, parameter in whole.parameters.items():
        torch.testing.assert_close(cut.parameters[name].grad, parameter.grad)
        torch.testing.assert_close(cut.parameters[name], parameter)


def test_a_turn_is_a_step_of_adam():
    player_step = seat_of(beta1=0.6, beta2=0.9, epsilon=1e-3)
    weight = player_step.parameters["line.weight"].detach().clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 5):
        turn(player_step, batches(1, seed=step), rate=0.01 * step)
        gradient = player_step.parameters["line.weight"].grad
        first, second = 0.6 * first + 0.4 * gradient, 0.9 * second + 0.1 * gradient**2
        weight -= 0.01 * step * (first / (1 - 0.6**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-3)
    torch.testing.assert_close(player_step.parameters["line.weight"].detach(), weight)


def test_a_turn_leaves_what_is_not_its_own_without_a_gradient():
    player_step = seat_of()
    before = copy.deepcopy(player_step.others["other"].state_dict())
    turn(player_step, batches(1))
    assert torch.equal(player_step.others["other"].weight, before["weight"])
    assert player_step.others["other"].weight.grad is None


def test_gradients_of_the_turn_before_do_not_count():
    once, twice = seat_of(), seat_of()
    turn(twice, batches(1, seed=1), rate=0.0)
    turn(twice, batches(1), rate=0.0)
    turn(once, batches(1), rate=0.0)
    assert torch.equal(once.parameters["line.weight"].grad, twice.parameters["line.weight"].grad)


def test_a_turn_reports_the_loss_of_each_slot_and_the_norm_of_the_gradient():
    player_step, slots = seat_of(slots=2), batches(2)
    expected = [player_step.player(batch, None, player_step.others).total.item() for batch in slots]
    record = turn(player_step, slots)
    assert [row["loss/line"].item() for row in record.rows] == pytest.approx(expected)
    norm = player_step.parameters["line.weight"].grad.norm().item()
    assert [row["gradient_norm/line"].item() for row in record.rows] == pytest.approx([norm, norm])
    assert record.skipped.item() == 0


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("turns_before", [0, 2])
def test_a_gradient_that_is_not_finite_moves_nothing(odd, turns_before):
    player_step = seat_of(slots=2)
    for number in range(turns_before):
        turn(player_step, batches(2, seed=number))
    weights, moments = state(player_step)
    bad = batches(2, seed=9)
    bad[1]["image"][0, 0] = odd  # in one slot alone
    record = turn(player_step, bad)
    assert record.skipped.item() == 1
    after, after_moments = state(player_step)
    assert torch.equal(after["line.weight"], weights["line.weight"])
    if turns_before:
        assert all(torch.equal(after_moments[0][key], value) for key, value in moments[0].items())
    assert after_moments[0]["step"].item() == turns_before
    assert all(torch.isfinite(value).all() for value in after_moments[0].values())


def test_the_run_goes_on_after_a_skipped_turn_as_if_it_had_not_been():
    player_step, undisturbed = seat_of(), seat_of()
    for each in (player_step, undisturbed):
        turn(each, batches(1))
    turn(player_step, [{"image": torch.full((4, 3), torch.nan, dtype=torch.float64)}])
    for each in (player_step, undisturbed):
        assert turn(each, batches(1, seed=1)).skipped.item() == 0
    assert torch.equal(player_step.parameters["line.weight"], undisturbed.parameters["line.weight"])


def test_bf16_computes_in_bf16_and_keeps_float32_weights(values):
    config = config_of(values, train__precision="bf16")
    game = build_game(config, CPU)
    player_steps = [PlayerStep(player, game, PlayerOptimizerConfig(), Slots(1), bf16=True) for player in game.players]
    seen = []
    for network in game.networks.values():
        network.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    noise = KeyedNoise(0, 0, 0, 0, CPU, torch.float32)
    for player_step in player_steps:
        before = state(player_step)[0]
        record = player_step.step([{"image": torch.rand(4, 1, 16, 16)}], [noise], 1e-3)
        assert record.rows[0][f"loss/{player_step.player.name}"].dtype == torch.float32
        for name, parameter in player_step.parameters.items():
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            assert {value.dtype for value in player_step.optimizer.state[parameter].values()} == {torch.float32}
            assert not torch.equal(parameter, before[name])
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for network in game.networks.values() for tensor in network.buffers()} == {
        torch.float32,
        torch.int64,
    }


# Learning rates.


def rates(images, total=1_000, **settings):
    return [learning_rate(PlayerOptimizerConfig(learning_rate=2.0, **settings), number, total) for number in images]


def test_a_constant_rate_stays():
    assert rates([0, 500, 1_000, 2_000]) == [2.0] * 4


def test_a_linear_rate_falls_to_0():
    assert rates([0, 250, 500, 1_000, 1_010], schedule="linear") == pytest.approx([2.0, 1.5, 1.0, 0.0, 0.0])


def test_a_cosine_rate_falls_to_0():
    expected = [2.0, 1 + math.cos(math.pi / 4), 1.0, 0.0, 0.0]
    assert rates([0, 250, 500, 1_000, 1_010], schedule="cosine") == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_warm_up_rises_from_0_to_the_height(schedule):
    assert rates([0, 50, 150], warmup_images=200, schedule=schedule) == pytest.approx([0.0, 0.5, 1.5])
    assert rates([199, 200, 201], warmup_images=200, schedule=schedule) == pytest.approx([2.0] * 3, abs=0.02)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_the_warm_up_the_rate_falls_from_its_height_to_0(schedule):
    assert rates([200, 600, 1_000], warmup_images=200, schedule=schedule) == pytest.approx([2.0, 1.0, 0.0])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [1_000, 5_000])
def test_a_warm_up_may_be_as_long_as_the_run_or_longer(schedule, warmup):
    found = rates(range(0, 1_001, 100), warmup_images=warmup, schedule=schedule)
    assert found[:-1] == pytest.approx([2.0 * images / warmup for images in range(0, 1_000, 100)])
    assert 0 <= found[-1] <= 2


# Clipping.


@pytest.mark.parametrize(("clip", "share"), [(0.1, 0.1), (1.0, 1.0), (1e3, None), (0.0, None)])
def test_a_longer_gradient_is_shortened_to_the_length(clip, share):
    free, clipped = seat_of(slots=2), seat_of(slots=2, clip_norm=clip)
    turn(free, batches(2))
    record = turn(clipped, batches(2))
    gradient, found = (player_step.parameters["line.weight"].grad for player_step in (free, clipped))
    length = gradient.norm().item()
    assert length > 1
    expected = gradient * share / length if share else gradient
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert record.rows[0]["gradient_norm/line"].item() == pytest.approx(length)  # as it was


def test_a_gradient_that_is_not_finite_is_skipped_and_not_clipped():
    player_step = seat_of(clip_norm=0.1)
    turn(player_step, batches(1))
    weights, moments = state(player_step)
    record = turn(player_step, [{"image": torch.full((4, 3), torch.inf, dtype=torch.float64)}])
    assert record.skipped.item() == 1
    after, after_moments = state(player_step)
    assert torch.equal(after["line.weight"], weights["line.weight"])
    assert all(torch.equal(after_moments[0][key], value) for key, value in moments[0].items())
