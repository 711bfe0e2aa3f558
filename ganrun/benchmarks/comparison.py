"""What all measures share: sides take turns, and what is found has one shape."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rates = Sequence[float]
"""Of one side, a number a repeat; higher is better."""


def in_turn(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """The rates of each side, all of them measured once before any is measured again: the machine may be shared."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            rates[name].append(side())
    return rates


def rate(step: Callable[[], object], amount: float, seconds: float) -> float:
    """How much is done a second by a step that does `amount`, called again for so long."""
    steps, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        step()
        steps += 1
    return steps * amount / passed


def ratio(ours: Rates, theirs: Rates) -> float:
    """Median over the repeats of ours over theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(rates: Rates) -> float:
    """Between the best and the worst repeat, as a share of the median."""
    return (max(rates) - min(rates)) / statistics.median(rates)


def result(
    what: str, peer: str, unit: str, ours: Rates, theirs: Rates, limit_share: float | None, **more: Any
) -> dict[str, Any]:
    """What `ganrun bench --json` prints; `sides` has the rates of every repeat."""
    return {
        "what": what,
        "peer": peer,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "unit": unit,
        "ratio": ratio(ours, theirs),
        "limit_share": limit_share,
        "repeats": len(ours),
        "spread": spread(ours),
        "sides": {"ganrun": list(ours), peer: list(theirs)},
    } | more
