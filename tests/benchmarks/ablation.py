"""What each thing that makes a round fast is worth: the round without it, beside the round, in turn."""

from collections.abc import Callable
from typing import Any

import torch

from ganrun.benchmarks.comparison import Rates, in_turn, rate, ratio, result, spread
from ganrun.benchmarks.rounds import changed, rounds, use_threads
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import Field
from ganrun.slots import Slots
from ganrun.training.player_step import has_bf16
from ganrun.training.state import TrainingState

REPEATS, SECONDS = 5, 2.0
Change = Callable[[TrainingState], None]


def measure(spec: RunSpec) -> dict[str, Any]:
    """Images/s of the round as it is and of each variant."""
    use_threads(spec.cluster)
    spec = changed(spec, data__slots=1, train__precision="float32")
    size = spec.data.batch_size
    steps: dict[str, Callable[[], None]] = {"the round": rounds(spec)[1]}
    for name, change in WITHOUT.items():
        state, steps[name] = rounds(spec)
        change(state)
    for slots in (2, 4):
        if size % slots == 0:
            steps[f"in {slots} slots"] = rounds(changed(spec, data__slots=slots), Slots(slots))[1]
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


def _contiguous(state: TrainingState) -> None:
    """Networks and images as PyTorch lays them out by default."""
    for network in state.game.networks.values():
        network.to(memory_format=torch.contiguous_format)
    inner = state._normalise_field

    def place(field: Field) -> Field:
        placed = inner(field)
        return placed.contiguous() if isinstance(placed, torch.Tensor) else placed

    state._normalise_field = place  # type: ignore[method-assign]


def _unfrozen(state: TrainingState) -> None:
    """Gradients also for the weights of who is not in turn."""
    for player_step in state.player_steps:
        player_step.player.owned.requires_grad_(True)
    for network in state.game.networks.values():
        network.requires_grad_ = lambda flag=True, network=network: network  # type: ignore[method-assign,misc]


class _Unfused(torch.optim.Adam):
    """It knows nothing of skipped steps."""

    def step(self, closure: Any = None) -> Any:
        self.grad_scale = self.found_inf = None
        return super().step(closure)


def _adam(foreach: bool) -> Change:
    def change(state: TrainingState) -> None:
        for player_step in state.player_steps:
            settings = player_step.settings
            player_step.optimizer = _Unfused(
                player_step.parameters.values(),
                settings.learning_rate,
                (settings.beta1, settings.beta2),
                foreach=foreach,
            )

    return change


def _all(*changes: Change) -> Change:
    def change(state: TrainingState) -> None:
        for each in changes:
            each(state)

    return change


def _without_average(state: TrainingState) -> None:
    state.ema.clear()


NOTHING = "with none of the first three"
WITHOUT: dict[str, Change] = {
    "without channels last": _contiguous,
    "without freezing who is not in turn": _unfrozen,
    "with Adam a tensor at a time": _adam(foreach=False),
    NOTHING: _all(_contiguous, _unfrozen, _adam(foreach=False)),
    "with foreach Adam": _adam(foreach=True),
    "without the EMA generator": _without_average,
}
