"""Where the time goes: parts and the rest make the whole, also where a part ends in an error."""

import pytest

from ganrun.telemetry import time_accounting
from ganrun.telemetry.time_accounting import TimeAccounting, as_metrics, timed_as


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(time_accounting, "time", clock)
    return clock


def test_what_is_no_part_is_the_rounds(clock):
    spent = TimeAccounting()
    clock.now += 5
    with spent.measure("data"):
        clock.now += 2
    with spent.measure("score"):
        clock.now += 3
    assert spent.read() == {"round": 5.0, "data": 2.0, "score": 3.0}
    clock.now += 1
    assert spent.read() == {"round": 1.0, "data": 0.0}


def test_a_method_s_time_is_a_part_also_if_it_fails(clock):
    class Host:
        def __init__(self):
            self.time_accounting = TimeAccounting()

        @timed_as("checkpoint")
        def save(self, seconds, *, fails=False):
            """Saves."""
            clock.now += seconds
            if fails:
                raise OSError
            return seconds

    host = Host()
    assert host.save(2) == 2
    with pytest.raises(OSError):
        host.save(3, fails=True)
    assert host.save.__doc__ == "Saves."
    assert as_metrics(host.time_accounting.read()) == {
        "seconds/round": 0.0,
        "seconds/data": 0.0,
        "seconds/checkpoint": 5.0,
    }
