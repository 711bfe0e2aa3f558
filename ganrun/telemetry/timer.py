"""Timer of a rank's own work in a turn, without the wait for other ranks. It identifies the slowest rank."""

import time

import torch

PAIRS = 1_000
"""Largest number of steps that are timed between two readings on a GPU."""


class Timer:
    """Timer of steps. On a GPU it uses CUDA events in the stream, without a sync until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._seconds, self._begun = 0.0, 0.0
        self._pairs: list[list[torch.cuda.Event]] = []
        self.steps = 0
        """Number of steps since the last reading."""
        self.is_on = True
        """False: nothing is timed or counted, as while a round is captured."""

    def start(self) -> None:
        """Start the timing of a step."""
        if not self.is_on:
            return
        self.steps += 1
        if not self._gpu:
            self._begun = time.perf_counter()
        elif len(self._pairs) < PAIRS:
            self._pairs.append([self._event()])

    def stop(self) -> None:
        """End the timing of the step."""
        if not self.is_on:
            return
        if not self._gpu:
            self._seconds += time.perf_counter() - self._begun
        elif len(self._pairs[-1]) == 1:
            self._pairs[-1].append(self._event())

    def read(self) -> float:
        """Return the mean seconds of a step since the last reading (0 if there was none), and reset the timer."""
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
