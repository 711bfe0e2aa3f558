"""A checkpoint that cannot be written is tried again, makes room for a newer one, or ends the run in words."""

import gc

import pytest

from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import Folder
from ganrun.training import checkpoint
from ganrun.worker import checkpoint_writer
from tests.waiting import until
from tests.worker.writing import Written


def test_one_that_fails_is_tried_again_until_it_is_written(written):
    written.storage.faults = {"weights": 3}
    written.submit(1)
    until(lambda: written.latest() == 1)
    written.checkpoints.drain()
    assert written.events == [("checkpoint_failed", 1)] * 3 + [("checkpoint", 1)]
    assert written.checkpoints.unsaved is None


@pytest.mark.parametrize("part", ["weights", "state.json", "manifest.json"])
def test_one_that_fails_leaves_nothing_behind(written, part):
    written.storage.faults = {part: 1}
    written.checkpoints.submit(written.pending(1))
    written.checkpoints.drain()
    assert written.there() in ([], [1])
    assert bool(written.there()) == (written.latest() == 1)
    assert len(written.storage.list("checkpoints")) == len(written.there())


def test_one_that_keeps_failing_makes_room_for_a_newer_one(written):
    written.storage.faults = {written.name(1): 10**9}
    written.submit(1)
    until(lambda: written.events)
    written.submit(2)
    written.checkpoints.drain()
    assert written.there() == [2]
    assert written.latest() == 2
    assert written.checkpoints.unsaved is None


def test_the_best_that_fails_makes_room_for_a_newer_best_alone(written):
    """Else best.json would not have it, and no later score that is worse would ever be the best."""
    written.storage.faults = {written.name(1): 10**9}
    written.submit(1, best=True)
    until(lambda: written.events)
    gc.disable()
    try:
        for images in (2, 3, 4):
            written.submit(images)
            assert sum(ref() is not None for ref in written.alive) <= 2
    finally:
        gc.enable()
    failures = len(written.events)
    until(lambda: len(written.events) > failures + 3)
    assert written.there() == []
    written.storage.faults = {}
    until(lambda: written.latest() == 4)
    assert written.latest("best") == 1
    written.storage.faults = {written.name(5): 10**9}
    written.submit(5, best=True)
    until(lambda: written.events[-1] == ("checkpoint_failed", 5))
    written.submit(6, best=True)
    written.checkpoints.drain()
    assert written.latest() == written.latest("best") == 6


def test_best_json_is_moved_again_until_it_is(written):
    for images in (1, 2):
        written.submit(images, to_score=True)
        written.checkpoints.drain()
    written.storage.faults = {"best.json": 3}
    written.point_best(1)
    until(lambda: written.latest("best") == 1)
    written.storage.faults = {"best.json": 10**9}
    written.point_best(2)
    until(lambda: written.events[-1] == ("best_failed", 2))
    written.checkpoints.drain()  # It waits for none that cannot be moved.
    written.storage.faults = {}
    until(lambda: written.latest("best") == 2)


def test_the_last_checkpoint_takes_along_a_best_json_that_could_not_be_moved(storage, lines):
    """Though it is not yet time to try again."""
    written = Written(storage, lines)
    written.submit(1, to_score=True)
    written.checkpoints.drain()
    storage.faults = {"best.json": 1}
    written.point_best(1)
    written.checkpoints.drain()
    assert written.latest("best") is None
    written.submit(2)
    written.checkpoints.drain()
    assert (written.latest("best"), written.latest()) == (1, 2)
    written.checkpoints.close()


def test_drain_gives_up_on_what_fails_and_says_so(written):
    written.storage.faults = {"checkpoints": 10**9}
    written.submit(1)
    written.checkpoints.drain()
    assert written.checkpoints.unsaved == f"checkpoint {written.name(1)} could not be written: Input/output error"
    assert written.latest() is None
    written.storage.faults = {}
    written.submit(2)
    written.checkpoints.drain()
    assert written.checkpoints.unsaved is None
    assert written.latest() == 2


@pytest.mark.parametrize("pointer", ["latest.json", "best.json"])
@pytest.mark.parametrize("late", [False, True], ids=["refused", "answer lost"])
def test_what_may_be_visible_is_not_touched_again(written, pointer, late):
    """The files are whole and perhaps pointed to: only the pointer is moved again, whatever else fails then."""
    storage = written.storage
    written.submit(1)
    written.checkpoints.drain()
    storage.calls.clear()
    storage.late, storage.faults = late, {pointer: 3}
    written.submit(2, best=True)
    until(lambda: ("checkpoint_failed", 2) in written.events)
    until(lambda: written.latest("best") == 2)
    written.checkpoints.drain()
    touched = [name for kind, name in storage.calls if written.name(2) in name]
    assert len(touched) == len(set(touched)) == 4
    assert ("delete", f"checkpoints/{written.name(2)}") not in storage.calls
    assert written.latest() == 2


def test_max_age_ends_the_run_only_when_checkpoints_fail(written, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(checkpoint_writer.time, "monotonic", lambda: clock[0])
    written.submit(1)
    written.checkpoints.drain()
    clock[0] += 10_000
    written.checkpoints.raise_fault(3600)  # None is due.
    written.storage.faults = {"checkpoints": 10**9}
    written.submit(2)
    written.checkpoints.drain()
    written.checkpoints.raise_fault(0)
    written.checkpoints.raise_fault(10_000)
    with pytest.raises(RunError, match=r"could not be written: Input/output error, and the last good one is 10000 s"):
        written.checkpoints.raise_fault(9_999)
    written.storage.faults = {}
    written.submit(3)
    written.checkpoints.drain()
    written.checkpoints.raise_fault(1)


def test_an_attempt_that_was_overtaken_is_told_so_and_makes_nothing_visible(written):
    written.submit(1)
    written.checkpoints.drain()
    newer = RunFolder(Folder(written.storage.path))
    assert newer.begin_attempt() == 2
    for images in (2, 3):
        written.submit(images, best=True)
        written.checkpoints.drain()
        with pytest.raises(RunError, match="attempt 1 was overtaken by attempt 2"):
            written.checkpoints.raise_fault(0)
    assert newer.pointer("latest") == Pointer(written.name(1), 1, 2, 1.0)
    assert newer.pointer("best") is None
    assert 3 not in written.there()


def test_an_attempt_overtaken_while_it_writes_makes_nothing_visible(written):
    written.begin(1, best=True)
    newer = RunFolder(Folder(written.storage.path))
    newer.begin_attempt()
    written.finish()
    assert isinstance(written.checkpoints.fault, RunError)
    assert newer.pointer("latest") is None
    assert newer.pointer("best") is None


def test_a_fault_of_the_program_ends_the_thread_and_hangs_nobody(written, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    written.begin(1)
    written.submit(2)
    monkeypatch.setattr(checkpoint, "make_visible", fail)
    written.finish()
    written.checkpoints.drain()
    with pytest.raises(ZeroDivisionError):
        written.checkpoints.raise_fault(0)
    written.submit(3)  # Nor does it hang then.
    written.checkpoints.drain()
    assert written.latest() is None


def test_old_ones_go_and_that_they_cannot_is_no_failure(storage, lines, monkeypatch):
    written = Written(storage, lines, keep=1)
    for images in (1, 2):
        written.submit(images)
        written.checkpoints.drain()
    assert written.there() == [2]
    storage.faults = {written.name(2): 10**9}
    written.submit(3)
    written.checkpoints.drain()
    assert written.events[-2:] == [("checkpoint", 3), ("delete_failed", 3)]
    assert written.checkpoints.unsaved is None
    assert written.latest() == 3
