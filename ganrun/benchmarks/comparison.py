"""Comparison of sides that run in turn, and the common form of results."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rates = Sequence[float]
"""Rates of one side, one per repeat; higher is better."""


def in_turn(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure the rates of all sides in turn, repeat by repeat, since the machine may be shared."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            rates[name].append(side())
    return rates


def rate(step: Callable[[], object], amount: float, seconds: float, wait: Callable[[], object] = lambda: None) -> float:
    """Return the rate of a step that does `amount`, called repeatedly for `seconds`.

    `wait` waits for what steps have only begun, on a GPU.
    """
    wait()
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        step()
        steps += 1
    wait()
    return steps * amount / (time.perf_counter() - begun)


def ratio(ours: Rates, theirs: Rates) -> float:
    """Return the median over repeats of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(rates: Rates) -> float:
    """Return the range of the repeats as a share of their median."""
    return (max(rates) - min(rates)) / statistics.median(rates)


def result(
    what: str, peer: str, unit: str, ours: Rates, theirs: Rates, limit_share: float | None, **more: Any
) -> dict[str, Any]:
    """Return the object that `ganrun bench --json` prints. `sides` has the rates of every repeat."""
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
