"""Accounting of a worker's time by part: rounds, data, scores, checkpoints, samples, telemetry."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from ganrun.telemetry.series import SECONDS

Part = Literal["data", "score", "checkpoint", "samples", "telemetry"]
"""Parts that are measured. The rest of the time is `round`."""


class TimeAccounting:
    """Seconds by part since the last reading. Parts must not be nested."""

    def __init__(self) -> None:
        self._spent = Counter[str]()
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Count the time of the block for `part`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._spent[part] += time.monotonic() - begun  # type: ignore[assignment]

    def read(self) -> dict[str, float]:
        """Return seconds by part, with `round` for the rest of the time, and reset them."""
        now = time.monotonic()
        rest = max(now - self._begun - sum(self._spent.values()), 0.0)
        spent: dict[str, float] = {"round": rest, "data": 0.0, **self._spent}
        self._spent.clear()
        self._begun = now
        return spent


Method = TypeVar("Method", bound=Callable[..., Any])


def timed_as(part: Part) -> Callable[[Method], Method]:
    """Return a decorator that counts the time of a method for `part`. Its object has a `time_accounting`."""

    def accounted(method: Method) -> Method:
        @wraps(method)
        def timed(self: Any, *arguments: Any, **options: Any) -> Any:
            with self.time_accounting.measure(part):
                return method(self, *arguments, **options)

        return cast(Method, timed)

    return accounted


def as_metrics(spent: dict[str, float]) -> dict[str, float]:
    """Return seconds by the keys of metrics lines, such as `seconds/data`."""
    return {SECONDS.of(part): seconds for part, seconds in spent.items()}
