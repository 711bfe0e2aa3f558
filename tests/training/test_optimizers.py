"""Optimizers of a player: formulas, steps that are skipped, checkpoints, and optimizers of the user's own."""

import copy
import math

import pytest
import torch
from torch import nn

from ganrun.config.registry import OPTIMIZERS
from ganrun.errors import UserError
from ganrun.games.game import Loss
from tests.training.test_player_step import batches, seat_of, state, turn


def gradients_of(player_step, steps=4):
    """Weights before each step and after the last, and the gradient of each step."""
    weights, gradients = [], []
    for step in range(1, steps + 1):
        weights.append(player_step.parameters["line.weight"].detach().clone())
        turn(player_step, batches(1, seed=step), rate=0.01 * step)
        gradients.append(player_step.parameters["line.weight"].grad.clone())
    return [*weights, player_step.parameters["line.weight"].detach()], gradients


def test_adamw_decays_the_weights_beside_the_step():
    weights, gradients = gradients_of(seat_of(name="adamw", beta1=0.6, beta2=0.9, epsilon=1e-3, weight_decay=0.3))
    first = second = torch.zeros_like(weights[0])
    for step, gradient in enumerate(gradients, 1):
        first, second = 0.6 * first + 0.4 * gradient, 0.9 * second + 0.1 * gradient**2
        update = first / (1 - 0.6**step) / ((second / (1 - 0.9**step)).sqrt() + 1e-3)
        torch.testing.assert_close(weights[step], weights[step - 1] * (1 - 0.01 * step * 0.3) - 0.01 * step * update)


def test_sgd_has_momentum_and_weight_decay():
    weights, gradients = gradients_of(seat_of(name="sgd", momentum=0.7, weight_decay=0.3))
    velocity = torch.zeros_like(weights[0])
    for step, gradient in enumerate(gradients, 1):
        velocity = 0.7 * velocity + gradient + 0.3 * weights[step - 1]
        torch.testing.assert_close(weights[step], weights[step - 1] - 0.01 * step * velocity)


class Plain(torch.optim.Optimizer):
    """Gradient descent that counts its steps; it is not fused."""

    def __init__(self, parameters, settings):
        super().__init__(parameters, {"lr": settings.learning_rate})

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                own = self.state[parameter]
                own["steps"] = own.get("steps", torch.zeros(())) + 1
                parameter.data.add_(parameter.grad, alpha=-group["lr"])


SETTINGS = [
    {"name": "adam"},
    {"name": "adamw", "weight_decay": 0.1},
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9},
    {"name": "plain"},
]


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS.data, "plain", Plain)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("after", [0, 2])
def test_a_gradient_that_is_not_finite_changes_nothing(settings, after):
    player_step, undisturbed = seat_of(**settings), seat_of(**settings)
    for each in (player_step, undisturbed):
        for step in range(after):
            turn(each, batches(1, seed=step))
    before = copy.deepcopy(state(player_step))
    broken = batches(1)
    broken[0]["image"][0, 0] = math.nan
    assert turn(player_step, broken).skipped == 1
    torch.testing.assert_close(state(player_step)[0], before[0], rtol=0, atol=0)
    for each in (player_step, undisturbed):
        turn(each, batches(1, seed=7))
    torch.testing.assert_close(state(player_step), state(undisturbed), rtol=0, atol=0)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_restored_optimizer_goes_on_to_the_bit(settings):
    saved, restored = seat_of(**settings), seat_of(**settings)
    for step in range(3):
        turn(saved, batches(1, seed=step))
    restored.load_state_dict({name: value.clone() for name, value in saved.state_dict().items()})
    for name, parameter in saved.parameters.items():
        restored.parameters[name].data.copy_(parameter)
    for each in (saved, restored):
        turn(each, batches(1, seed=7))
    torch.testing.assert_close(state(restored), state(saved), rtol=0, atol=0)


def test_a_state_that_is_no_tensor_is_refused(monkeypatch):
    player_step = seat_of(name="plain")
    turn(player_step, batches(1))
    player_step.optimizer.state[player_step.parameters["line.weight"]]["steps"] = 3
    with pytest.raises(UserError, match=r"optimizer\.line\.name: plain keeps line\.weight\.steps as int"):
        player_step.state_dict()


def test_a_parameter_without_a_gradient_stays(monkeypatch):
    player_step = seat_of(name="sgd", momentum=0.9)
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    player_step.optimizer.add_param_group({"params": [unused]})
    monkeypatch.setattr(
        player_step.player,
        "forward",
        lambda batch, noise, others: Loss(player_step.player.owned["line"](batch["image"]).square().mean(), {}),
    )
    turn(player_step, batches(1))
    assert unused.tolist() == [1, 1]
