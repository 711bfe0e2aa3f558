"""How long a rank works in a turn before it waits for others: what tells the slow one, since all wait for it."""

import time

import torch

PAIRS = 1_000
"""So many steps between two readings are measured on a GPU."""


class Timer:
    """Measures steps; on a GPU by events in its stream, which nothing waits for until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._seconds, self._begun = 0.0, 0.0
        self._pairs: list[list[torch.cuda.Event]] = []
        self.steps = 0
        """Since the last reading."""

    def start(self) -> None:
        """A step begins."""
        self.steps += 1
        if not self._gpu:
            self._begun = time.perf_counter()
        elif len(self._pairs) < PAIRS:
            self._pairs.append([self._event()])

    def stop(self) -> None:
        """It ends."""
        if not self._gpu:
            self._seconds += time.perf_counter() - self._begun
        elif len(self._pairs[-1]) == 1:
            self._pairs[-1].append(self._event())

    def read(self) -> float:
        """Mean seconds of a step since the last reading, 0 without one; starts again from zero."""
        seconds, steps = self._seconds, self.steps
        if self._pairs:
            self._pairs[-1][1].synchronize()
            seconds, steps = sum(begin.elapsed_time(end) for begin, end in self._pairs) / 1000, len(self._pairs)
        self._seconds, self.steps, self._pairs = 0.0, 0, []
        return seconds / steps if steps else 0.0

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
