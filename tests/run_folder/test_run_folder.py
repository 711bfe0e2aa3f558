"""The run folder: pointers, attempts and the lease."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ganrun.errors import RunError
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.run_folder import Pointer, RunFolder
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
def folder(tmp_path):
    return RunFolder(Folder(tmp_path / "run"))


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "run")


def nothing():
    pass


# Pointers and attempts.


def test_there_is_no_pointer_before_the_first_checkpoint(folder):
    assert folder.pointer("latest") is None


def test_a_pointer_reads_as_it_was_written(folder):
    pointer = Pointer("000000000100-0001", 100, 1, 3.5)
    folder.move_pointer("latest", pointer)
    assert folder.pointer("latest") == pointer
    assert folder.pointer("best") is None
    assert json.loads(folder.storage.read("latest.json")) == {
        "checkpoint": "000000000100-0001",
        "images": 100,
        "attempt": 1,
        "score": 3.5,
    }


def test_attempts_are_numbered_from_1(folder):
    assert [folder.begin_attempt() for _ in range(3)] == [1, 2, 3]


def test_an_attempt_after_a_rollback_keeps_its_generation_and_follows_none_but_its_own(folder):
    assert folder.rollback_count() == 0
    first = folder.begin_attempt()
    assert folder.begin_attempt(1, after=first) == 2
    assert folder.rollback_count() == 1
    with pytest.raises(RunError, match="attempt 1 was overtaken by attempt 2"):
        folder.begin_attempt(1, after=first)
    folder.storage.append("events/0002.jsonl", b'{"kind": "rollback"}\n')
    assert folder.rollback_count() == 1


def test_attempts_are_unique_under_a_race(folder):
    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(lambda _: RunFolder(folder.storage).begin_attempt(), range(24)))
    assert sorted(attempts) == list(range(1, 25))


@pytest.mark.parametrize("name", ["latest", "best"])
@pytest.mark.parametrize("pointed", [True, False])
def test_an_old_attempt_cannot_move_a_pointer_once_a_newer_one_began(folder, name, pointed):
    old = folder.begin_attempt()
    before = Pointer("a", 100, old) if pointed else None
    if before:
        folder.move_pointer(name, before)
    new = folder.begin_attempt()
    with pytest.raises(RunError, match=f"attempt {old} was overtaken by attempt {new}"):
        folder.move_pointer(name, Pointer("b", 200, old))
    after = folder.pointer(name)
    assert (after and after.checkpoint) == (before and before.checkpoint)
    folder.move_pointer(name, Pointer("c", 150, new))
    assert folder.pointer(name).checkpoint == "c"


def test_a_new_attempt_makes_latest_its_own_and_leaves_where_it_points(folder):
    folder.move_pointer("latest", Pointer("a", 100, folder.begin_attempt(), 2.5))
    folder.begin_attempt()
    assert folder.pointer("latest") == Pointer("a", 100, 2, 2.5)


def test_an_attempt_that_begins_while_a_pointer_moves_wins(tmp_path):
    """The newer attempt begins between the old one's read and its write."""

    class Meddled(Folder):
        meddle = True

        def replace(self, name, data, version):
            if self.meddle:
                self.meddle = False
                RunFolder(self).begin_attempt()
            return super().replace(name, data, version)

    folder = RunFolder(Meddled(tmp_path / "run"))
    folder.move_pointer("latest", Pointer("a", 100, folder.begin_attempt()))
    with pytest.raises(RunError, match="overtaken by attempt 2"):
        folder.move_pointer("latest", Pointer("b", 200, 1))
    assert folder.pointer("latest").checkpoint == "a"


@pytest.mark.parametrize("content", [b"", b'{"checkpoint": "a"', b"[]", b'{"images": 3}'])
def test_a_damaged_pointer_ends_the_run_instead_of_beginning_it_anew(folder, content):
    folder.storage.write("latest.json", content)
    with pytest.raises(RunError, match=r"latest\.json is damaged"):
        folder.pointer("latest")
    with pytest.raises(RunError, match=r"latest\.json is damaged"):
        folder.begin_attempt()


# The lease.


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
    assert storage.list() == []


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
def test_a_damaged_lease_is_said_to_be_so(tmp_path, content):
    storage = Folder(tmp_path)
    storage.write("lease.json", content)
    with pytest.raises(RunError, match=r"lease\.json of the run is damaged"):
        Lease(storage, lambda: None)
