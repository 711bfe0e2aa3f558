"""Optimizers of a player: formulas, steps that are skipped, checkpoints, and optimizers of the user's own."""

import copy
import math

import pytest
import torch
from torch import nn

from ganrun.config.registry import OPTIMIZERS
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.errors import UserError
from ganrun.games.game import Game
from ganrun.games.latent import Latent
from ganrun.slots import Slots
from ganrun.training.flat import flatten
from ganrun.training.new_state import new_state
from ganrun.training.player_step import PlayerStep
from tests.conftest import config_of
from tests.training.test_player_step import CPU, batches, seat_of, state, turn


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


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_whose_betas_change_is_torchs_with_those_of_each_step(name):
    decay = 0.1 if name == "adamw" else 0.0
    beta2 = {"schedule": "linear", "from": 0.9, "to": 0.99, "until_images": 4}
    settings = PlayerOptimizerConfig(name=name, beta1=0.3, beta2=beta2, weight_decay=decay)
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(50, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    mine = OPTIMIZERS[name]([ours], settings)
    reference = torch.optim.AdamW([theirs], 1e-2, weight_decay=decay)
    for step in range(6):
        ours.grad = torch.randn(50, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        mine.param_groups[0]["lr"], mine.param_groups[0]["betas"] = 1e-2, settings.betas_at(step)
        reference.param_groups[0]["betas"] = settings.betas_at(step)
        mine.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert mine.state[ours].keys() == reference.state[theirs].keys()
    before = [ours.detach().clone(), *(value.clone() for value in mine.state[ours].values())]
    ours.grad = torch.full_like(ours, math.nan)
    mine.found_inf = torch.ones(())
    mine.step()
    for now, then in zip([ours, *mine.state[ours].values()], before, strict=True):
        assert torch.equal(now, then)


def test_betas_may_begin_to_change_in_a_run_that_resumes():
    fixed, changing = seat_of(), seat_of(beta2={"schedule": "linear", "from": 0.99, "to": 0.999, "until_images": 100})
    turn(fixed, batches(1, seed=1))
    changing.load_state_dict(fixed.state_dict())
    again = changing.state_dict()
    assert again.keys() == fixed.state_dict().keys()
    for name, value in fixed.state_dict().items():
        assert torch.equal(again[name], value)


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
    player_step.optimizer.optimizer.state[player_step.parameters["line.weight"]]["steps"] = 3
    with pytest.raises(UserError, match=r"optimizer\.line\.name: plain keeps line\.weight\.steps as int"):
        player_step.state_dict()


@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
def test_blocks_step_as_single_parameters_do(settings, values):
    """Whole networks against torch's optimizer over their parameters, with a parameter that never has a gradient."""
    settings = PlayerOptimizerConfig(**settings)
    values["objective"] = {"discriminator_turns": 2}
    state = new_state(config_of(values, optimizer__discriminator=settings.model_dump()), CPU, Slots(6))
    step = state.player_steps[0]
    copies = {name: nn.Parameter(each.detach().clone()) for name, each in step.parameters.items()}
    reference = OPTIMIZERS[settings.name](copies.values(), settings)
    take = step.optimizer.step

    def both(norm, skipped, rate, betas):
        for name, copied in copies.items():
            copied.grad = step.parameters[name].grad.clone()
        reference.param_groups[0]["lr"] = float(rate)
        reference.step()
        take(norm, skipped, rate, betas)

    step.optimizer.step = both
    batches = [{"image": torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)} for _ in range(6)]
    for _ in range(3):
        state.round(lambda: batches)
        for name, copied in copies.items():
            torch.testing.assert_close(step.parameters[name], copied, rtol=1e-12, atol=0)
            for key, value in reference.state[copied].items():
                if value is not None:
                    torch.testing.assert_close(step.state_dict()[f"{name}.{key}"], value, rtol=1e-12, atol=0)


def test_a_parameter_without_a_gradient_stays():
    player_step = seat_of(name="adam")
    player_step.player.owned["line"].register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    game = Game({"line": player_step.player.owned["line"]}, (player_step.player,), (), Latent(1), sample=None)
    again = PlayerStep(player_step.player, game, flatten(game.networks), PlayerOptimizerConfig(), Slots(1), False)
    again.others = player_step.others
    for seed in range(3):
        turn(again, batches(1, seed=seed))
    assert again.parameters["line.unused"].tolist() == [1, 1]
    assert again.optimizer.gradients["line.unused"].tolist() == [0, 0]
