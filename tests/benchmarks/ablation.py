"""What each thing that makes a round fast is worth: the round without it, beside the round, in turn."""

from collections.abc import Callable
from typing import Any

import torch

from ganrun.benchmarks.comparison import Rates, in_turn, rate, ratio, result, spread
from ganrun.benchmarks.rounds import changed, rounds, use_threads
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import RawBatch
from ganrun.games.build import build_game
from ganrun.games.game import Batch
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.ema import EMA
from ganrun.training.flat import FlatNetwork, flatten
from ganrun.training.new_state import new_state, state_of
from ganrun.training.player_optimizer import PlayerOptimizer
from ganrun.training.player_step import PlayerStep, has_bf16
from ganrun.training.state import TrainingState

REPEATS, SECONDS = 5, 2.0
BALANCE: dict[str, dict[str, Any]] = {
    "with DiffAugment": {"objective__diffaugment": ["color", "translation", "cutout"]},
    "with ADA's pipe, three groups": {"objective__ada_probability": 0.3},
    "with ADA's pipe, all six groups": {
        "objective__ada_probability": 0.3,
        "objective__ada_transforms": ["blit", "geometric", "color", "filter", "noise", "cutout"],
    },
    "with R1": {"objective__penalties": {"r1": 10}},
    "with R1 in every fourth round": {"objective__penalties": {"r1": 10}, "objective__penalty_every_rounds": 4},
    "with R1 by finite differences": {"objective__penalties": {"r1_differences": 10}},
}
"""What keeps the balance of the players, over a config without it."""
Change = Callable[[TrainingState], None]


def measure(spec: RunSpec) -> dict[str, Any]:
    """Images/s of the round as it is and of each variant."""
    use_threads(spec.cluster)
    spec = changed(spec, data__slots=1, train__precision="float32")
    size = spec.data.batch_size
    steps: dict[str, Callable[[], None]] = {"the round": rounds(spec)[1]}
    for name, build in WITHOUT.items():
        steps[name] = rounds(spec, state=build(spec))[1]
    for slots in (2, 4):
        if size % slots == 0:
            steps[f"in {slots} slots"] = rounds(changed(spec, data__slots=slots), Slots(slots))[1]
    for name, objective in BALANCE.items():
        steps[name] = rounds(changed(spec, **objective))[1]
    if has_bf16(torch.device("cpu")):
        steps["in bf16"] = rounds(changed(spec, train__precision="bf16"))[1]
    sides: dict[str, Callable[[], float]] = {
        name: lambda step=step: rate(step, size, SECONDS)  # type: ignore[misc]
        for name, step in steps.items()
    }
    in_turn(sides, 1)
    rates = in_turn(sides, REPEATS)
    whole = rates["the round"]
    plainest = rates[NOTHING]
    ratios = {name: _summary(found, whole) for name, found in rates.items()}
    return result("ablation", NOTHING, "images/s", whole, plainest, None, sides=rates, ratios=ratios)


def describe(found: dict[str, Any]) -> str:
    """A line a variant."""
    width = max(map(len, found["ratios"]))
    lines = [
        f"{name:<{width}}  {one['ratio']:.3f} of the round  (spread {one['spread']:.0%})"
        for name, one in found["ratios"].items()
    ]
    return "\n".join([*lines, f"medians of {found['repeats']} repeats in turn; below 1: worth having"])


def _summary(rates: Rates, whole: Rates) -> dict[str, float]:
    ratios = [a / b for a, b in zip(rates, whole, strict=True)]
    return {"ratio": ratio(rates, whole), "spread": spread(ratios)}


def _channels_last(spec: RunSpec) -> TrainingState:
    return new_state(spec, torch.device("cpu"), Slots(1))


def _contiguous(spec: RunSpec) -> TrainingState:
    """Networks and images as PyTorch lays them out by default."""
    game = build_game(spec, torch.device("cpu"))
    for network in game.networks.values():
        network.to(memory_format=torch.contiguous_format)
    state = state_of(game, spec, Slots(1))
    inner = state.normalise

    def place(batch: RawBatch, noise: KeyedNoise | None = None) -> Batch:
        return {
            name: each.contiguous() if isinstance(each, torch.Tensor) else each
            for name, each in inner(batch, noise).items()
        }

    state.normalise = place  # type: ignore[method-assign]
    return state


def _unfrozen(state: TrainingState) -> None:
    """Gradients also for the weights of who is not in turn."""
    for player_step in state.player_steps:
        player_step.player.owned.requires_grad_(True)
    for network in state.game.networks.values():
        network.requires_grad_ = lambda flag=True, network=network: network  # type: ignore[method-assign,misc]


class _Single(PlayerOptimizer):
    """Adam over the parameters one by one; it knows nothing of skipped steps."""

    def __init__(self, step: PlayerStep, networks: dict[str, FlatNetwork], foreach: bool) -> None:
        super().__init__(step.player, networks, step.settings)
        settings, self.built_in, self.in_blocks = step.settings, False, False
        betas = (settings.beta1, settings.beta2)
        self.optimizer = torch.optim.Adam(self.parameters.values(), settings.learning_rate, betas, foreach=foreach)


def _adam(foreach: bool) -> Change:
    def change(state: TrainingState) -> None:
        networks = flatten(state.game.networks)
        for player_step in state.player_steps:
            player_step.optimizer = _Single(player_step, networks, foreach)
        state.ema = {name: EMA(state.game.networks[name], networks[name]) for name in state.ema}

    return change


def _with(build: Callable[[RunSpec], TrainingState], *changes: Change) -> Callable[[RunSpec], TrainingState]:
    def built(spec: RunSpec) -> TrainingState:
        state = build(spec)
        for change in changes:
            change(state)
        return state

    return built


def _without_average(state: TrainingState) -> None:
    state.ema.clear()


NOTHING = "with none of the first three"
WITHOUT: dict[str, Callable[[RunSpec], TrainingState]] = {
    "without channels last": _contiguous,
    "without freezing who is not in turn": _with(_channels_last, _unfrozen),
    "with Adam a tensor at a time": _with(_channels_last, _adam(foreach=False)),
    NOTHING: _with(_contiguous, _adam(foreach=False), _unfrozen),
    "with foreach Adam": _with(_channels_last, _adam(foreach=True)),
    "without the EMA generator": _with(_channels_last, _without_average),
}
