"""Where the time of a run goes: what a worker spends on each part beside its rounds."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from ganrun.telemetry.series import SECONDS

Part = Literal["data", "score", "checkpoint", "samples", "telemetry"]
"""All that is no part is `round`."""


class TimeAccounting:
    """Seconds by part since the last reading. Parts do not lie in each other."""

    def __init__(self) -> None:
        self._spent = Counter[str]()
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """What is done in this block is for that part."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._spent[part] += time.monotonic() - begun  # type: ignore[assignment]

    def read(self) -> dict[str, float]:
        """Seconds of each part and of the rounds, which are the rest of the time; starts again from zero."""
        now = time.monotonic()
        rest = max(now - self._begun - sum(self._spent.values()), 0.0)
        spent: dict[str, float] = {"round": rest, "data": 0.0, **self._spent}
        self._spent.clear()
        self._begun = now
        return spent


Method = TypeVar("Method", bound=Callable[..., Any])


def timed_as(part: Part) -> Callable[[Method], Method]:
    """Decorates a method of an object with `time_accounting`: its time counts for that part."""

    def accounted(method: Method) -> Method:
        @wraps(method)
        def timed(self: Any, *arguments: Any, **options: Any) -> Any:
            with self.time_accounting.measure(part):
                return method(self, *arguments, **options)

        return cast(Method, timed)

    return accounted


def as_metrics(spent: dict[str, float]) -> dict[str, float]:
    """As a line of metrics has it."""
    return {SECONDS.of(part): seconds for part, seconds in spent.items()}
