"""The lease of a run: taken, refused, renewed, lost, and taken over from a dead process."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ganrun.errors import RunError
from ganrun.run_folder.lease import Lease, LeaseHeldError, take_lease
from ganrun.run_folder.process_identity import ProcessIdentity
from ganrun.run_folder.status import live_holder
from ganrun.storage import Folder
from tests.waiting import WAIT, until


class Clock(Folder):
    """A folder whose time is set by the test, and which may fail."""

    time = 1_000.0
    down = False
    refused = 0
    """So often while it was down."""

    def now(self):
        return self.time

    def replace(self, name, data, version):
        if self.down:
            self.refused += 1
            raise OSError("the storage is away")
        return super().replace(name, data, version)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "run")


def nothing():
    pass


def test_a_second_taker_is_refused_and_told_who_holds_it_and_until_when(clock):
    lease = Lease(clock, nothing)
    clock.time += 20
    with pytest.raises(RunError, match=rf"held by process {os.getpid()} on .* until \d\d:\d\d:\d\d \(40 s from now"):
        Lease(clock, nothing)
    lease.release()


def test_a_released_lease_is_free(clock):
    Lease(clock, nothing).release()
    assert clock.list() == []
    Lease(clock, nothing).release()


def test_an_expired_lease_is_taken_over_and_its_holder_told(clock):
    lost = threading.Event()
    old = Lease(clock, lost.set, seconds=0.2)
    clock.down = True  # the old holder cannot renew
    until(lambda: clock.refused > 3)
    assert not lost.is_set()
    other = Clock(clock.path)  # another machine, from which the storage can be reached
    other.time = clock.time + 10
    new = Lease(other, nothing)
    assert lost.wait(WAIT)
    clock.down = False
    held = clock.read("lease.json")
    old.release()
    assert clock.read("lease.json") == held
    new.release()


def test_of_many_takers_of_an_expired_lease_one_gets_it(clock):
    clock.write("lease.json", json.dumps({"id": "x", "holder": "process 1 on a", "expires": 1.0}).encode())

    def take(_):
        try:
            return Lease(clock, nothing)
        except RunError:
            return None

    with ThreadPoolExecutor(8) as pool:
        leases = [lease for lease in pool.map(take, range(8)) if lease]
    assert len(leases) == 1
    leases[0].release()


def test_a_taker_that_comes_second_is_refused_even_if_the_first_was_slow(tmp_path):
    """The other takes the free lease between our look and our write, and has it for no time at all."""

    class Overtaken(Clock):
        meddle = True

        def create(self, name, data):
            if self.meddle:
                self.meddle = False
                super().create(name, json.dumps({"id": "x", "holder": "process 1 on a", "expires": 0.0}).encode())
            return super().create(name, data)

    storage = Overtaken(tmp_path / "run")
    lease = Lease(storage, nothing)
    assert "process 1 on a" not in storage.read("lease.json").decode()
    lease.release()
    assert storage.list() == ["events"]  # That process is recorded as dead.


def test_a_lease_is_renewed(clock):
    lease = Lease(clock, nothing, seconds=0.2)
    clock.time += 5
    until(lambda: json.loads(clock.read("lease.json"))["expires"] == pytest.approx(clock.time + 0.2))
    lease.release()


@pytest.mark.parametrize("fails", [0, 2])
def test_a_lease_is_renewed_before_it_expires_even_if_two_renewals_in_a_row_fail(clock, monkeypatch, fails):
    """By the clock of the storage, which only the waits of the lease's own thread move."""
    lost, looked, left = threading.Event(), threading.Event(), []

    class Waits(threading.Event):
        def wait(self, timeout=None):
            if len(left) == 12:
                looked.set()
                return super().wait(60)
            clock.time += timeout
            left.append(json.loads(clock.read("lease.json"))["expires"] - clock.time)
            clock.down = len(left) % (fails + 1) != 0
            return False

    monkeypatch.setattr("ganrun.run_folder.lease.threading", SimpleNamespace(Event=Waits, Thread=threading.Thread))
    lease = Lease(clock, lambda: (lost.set(), looked.set()))
    assert looked.wait(60)
    held = json.loads(clock.read("lease.json"))["expires"] - clock.time
    lease.release()
    assert min(left) > 0
    assert held == 60
    assert not lost.is_set()


def test_a_lease_that_another_has_taken_calls_on_loss_once_and_is_left_to_the_other(clock):
    calls = []
    lost = threading.Event()
    lease = Lease(clock, lambda: (calls.append(1), lost.set()), seconds=0.2)
    other = json.dumps({"id": "x", "holder": "process 1 on a", "expires": clock.time + 60}).encode()
    until(lambda: clock.replace("lease.json", other, clock.read_version("lease.json")[1]))  # Between two renewals.
    assert lost.wait(WAIT)
    lease.release()
    assert calls == [1]
    assert clock.read("lease.json") == other


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"id": 1, "holder": 2, "expires": "soon"}'])
def test_a_corrupt_lease_is_said_to_be_so(tmp_path, content):
    storage = Folder(tmp_path)
    storage.write("lease.json", content)
    with pytest.raises(RunError, match=r"lease\.json of the run is corrupt"):
        Lease(storage, lambda: None)


# A holder that is dead.

HOLD = """
import sys, time
from ganrun.run_folder.lease import Lease
from ganrun.storage import Folder
Lease(Folder(sys.argv[1]), lambda: None)
print("held", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease of `tmp_path / "run"`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_the_lease_of_a_live_process_of_this_machine_is_refused(holder, tmp_path):
    storage = Folder(tmp_path / "run")
    with pytest.raises(LeaseHeldError, match=f"held by process {holder.pid} on "):
        Lease(storage, nothing)
    assert f"process {holder.pid} on " in live_holder(storage).holder


@pytest.mark.parametrize("reaped", [False, True])
def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(holder, tmp_path, reaped):
    storage = Folder(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))  # Unreaped, it is a zombie.
    assert live_holder(storage) is None
    assert json.loads(storage.read("lease.json"))["expires"] > storage.now()
    Lease(storage, nothing).release()


def test_a_process_id_that_was_used_again_is_another_process(clock):
    lease = Lease(clock, nothing)
    written = json.loads(clock.read("lease.json"))
    lease.release()
    earlier = written["process"] | {"start_time": written["process"]["start_time"] - 1}
    clock.write("lease.json", json.dumps(written | {"id": "x", "process": earlier}).encode())
    Lease(clock, nothing).release()


@pytest.mark.parametrize(
    "process", [{"machine": "another", "pid": 1, "start_time": 1}, {"machine": "x"}, "unknown", None, {"pid": []}]
)
def test_a_process_that_this_machine_cannot_see_keeps_its_lease_until_it_expires(clock, process):
    lease = {"id": "x", "holder": "process 1 on a", "expires": clock.time + 30, "process": process}
    clock.write("lease.json", json.dumps(lease).encode())
    with pytest.raises(LeaseHeldError, match="held by process 1 on a until"):
        Lease(clock, nothing)
    clock.time += 30
    Lease(clock, nothing).release()


def test_the_identity_of_a_process_is_its_own():
    mine = ProcessIdentity.of_this_process()
    assert mine is not None
    assert mine.pid == os.getpid()
    assert not mine.is_dead()
    assert ProcessIdentity.parse(vars(mine)) == mine


# Waiting.


def test_a_command_that_waits_takes_the_lease_when_it_is_free(holder, tmp_path):
    said, stop = [], threading.Event()

    def say(text):
        said.append(text)
        holder.send_signal(signal.SIGKILL)

    lease = take_lease(Folder(tmp_path / "run"), stop, True, say)
    lease.release()
    assert [text.rpartition(": ")[2] for text in said] == ["waiting until it is free"]
    assert f"held by process {holder.pid} on" in said[0]
    assert not stop.is_set()


def test_a_command_that_is_stopped_while_it_waits_leaves_the_lease_alone(holder, tmp_path):
    storage, stop = Folder(tmp_path / "run"), threading.Event()
    held = json.loads(storage.read("lease.json"))["id"]
    with pytest.raises(KeyboardInterrupt):
        take_lease(storage, stop, True, lambda text: stop.set())
    assert json.loads(storage.read("lease.json"))["id"] == held


def test_a_command_that_does_not_wait_is_refused_and_told_of_the_option(holder, tmp_path):
    with pytest.raises(LeaseHeldError, match="with --wait"):
        take_lease(Folder(tmp_path / "run"), threading.Event(), False, print)
