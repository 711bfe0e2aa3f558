"""A rank's own time."""

import pytest
import torch

from ganrun.telemetry import timer
from ganrun.telemetry.timer import Timer


def test_it_reads_the_mean_of_its_laps_and_begins_anew(monkeypatch):
    times = iter([0.0, 1.0, 10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr(timer.time, "perf_counter", lambda: next(times))
    watch = Timer(torch.device("cpu"))
    assert watch.read() == 0.0
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.steps == 2
    assert watch.read() == pytest.approx((1.0 + 3.0) / 2)
    assert watch.steps == 0
    watch.start()
    watch.stop()
    assert watch.read() == 0.5
