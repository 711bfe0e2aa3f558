"""Each kill and each stop of a run is counted once, whatever it left behind."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ganrun.run_folder.curve import read_events
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.restarts import count_restarts
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import Folder
from tests.run_folder.making import event
from tests.waiting import WAIT

BEGUN, START, DIED, STOP = event("attempt"), event("start"), event("died"), event("stop")


def by_ray(failures, reason="failure"):
    """The workers' start after so many failures in this command."""
    return event("start", reason=reason, failures=failures)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], {}),
        ([BEGUN, START], {}),
        # Commands.
        ([BEGUN, START, DIED, BEGUN, START], {"failure": 1}),
        ([BEGUN, START, DIED, DIED, DIED, BEGUN, START], {"failure": 3}),  # Two died before their workers began.
        ([DIED, BEGUN, START], {"failure": 1}),  # As the very first.
        ([BEGUN, START, DIED], {"failure": 1}),  # The next one has not begun either.
        ([BEGUN, START, BEGUN, START], {"failure": 1}),  # It failed and said so, or an older ganrun was killed.
        ([BEGUN, DIED, BEGUN, START], {"failure": 1}),  # Its line of the start was lost.
        ([BEGUN, START, STOP, BEGUN, START], {"resume": 1}),
        ([BEGUN, START, STOP, DIED, BEGUN, START], {"resume": 1, "failure": 1}),
        ([BEGUN, START, STOP, BEGUN, BEGUN, START], {"resume": 1, "failure": 1}),
        ([BEGUN, START, event("finish"), DIED], {}),  # Killed after the end: nothing was lost.
        # Workers.
        ([BEGUN, START, BEGUN, by_ray(1), BEGUN, by_ray(2)], {"failure": 2}),
        ([BEGUN, START, BEGUN, by_ray(3)], {"failure": 3}),  # Two groups died before they began an attempt.
        ([BEGUN, START, BEGUN, BEGUN, by_ray(2)], {"failure": 2}),  # The second one began one, no more.
        ([BEGUN, by_ray(1)], {"failure": 1}),  # The first group of all.
        ([BEGUN, START, STOP, BEGUN, by_ray(1)], {"resume": 1, "failure": 1}),
        ([BEGUN, START, BEGUN, by_ray(1), DIED, BEGUN, by_ray(1)], {"failure": 3}),
        # Without a failure.
        ([BEGUN, START, event("left"), BEGUN, by_ray(0, "resize"), event("resize")], {"resize": 1}),
        ([BEGUN, START, BEGUN, by_ray(1, "preemption")], {"preemption": 1, "failure": 1}),
        ([BEGUN, START, event("left"), BEGUN, event("rollback")], {}),
        ([BEGUN, START, BEGUN, event("schedule")], {}),  # The line of the end was lost.
        ([BEGUN, START, event("left"), BEGUN, DIED, BEGUN, START], {"failure": 1}),  # Killed while it rolled back.
        ([BEGUN, START, event("left"), BEGUN, event("exploit"), DIED, BEGUN, START], {"failure": 1}),
    ],
)
def test_what_counts(events, expected):
    assert count_restarts(events) == expected


def test_a_killed_command_is_recorded_by_the_next_one_that_holds_the_run(tmp_path):
    """Even one that was killed before its first attempt. A command that ends leaves no death behind."""
    storage = Folder(tmp_path)
    held = "import sys, time; from ganrun.run_folder.lease import Lease; from ganrun.storage import Folder\n"
    held += "Lease(Folder(sys.argv[1]), print); print('held', flush=True); time.sleep(600)"
    for kills in (1, 2):
        with subprocess.Popen([sys.executable, "-c", held, tmp_path], stdout=subprocess.PIPE, text=True) as command:
            assert command.stdout.readline() == "held\n"
            os.kill(command.pid, signal.SIGKILL)
            command.wait(WAIT)
        lines = storage.read("events/0000.jsonl").splitlines() if kills > 1 else []
        assert [json.loads(line)["kind"] for line in lines] == ["died"] * (kills - 1)
    Lease(storage, print).release()
    Lease(storage, print).release()
    assert RunFolder(storage).begin_attempt() == 1
    events, faults = read_events(storage)
    assert [each.kind for each in events] == ["died", "died", "attempt"]
    assert f"process {command.pid} on " in events[1].message
    assert faults == []
