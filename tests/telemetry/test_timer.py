"""A rank's own time."""

import pytest
import torch

from ganrun.telemetry import timer as stopwatch
from ganrun.telemetry.timer import Stopwatch


def test_it_reads_the_mean_of_its_laps_and_begins_anew(monkeypatch):
    times = iter([0.0, 1.0, 10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(times))
    watch = Stopwatch(torch.device("cpu"))
    assert watch.read() == 0.0
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.laps == 2
    assert watch.read() == pytest.approx((1.0 + 3.0) / 2)
    assert watch.laps == 0
    watch.start()
    watch.stop()
    assert watch.read() == 0.5
