"""What is written behind the rounds: lines in their order, checkpoints by a stated rule, and no round waits."""

import gc
import json
import logging
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch

from ganrun.data.index import open_data
from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import Folder
from ganrun.storage.retry import Traffic
from ganrun.training import checkpoint
from ganrun.training.state_files import RunProgress, Snapshot
from ganrun.worker import checkpoint_writer, line_writer
from ganrun.worker.checkpoint_writer import CheckpointWriter, PendingCheckpoint
from ganrun.worker.host import WorkerHost
from ganrun.worker.line_writer import LineWriter
from tests.conftest import config_of
from tests.ranks import StopAt
from tests.training.test_checkpoint import played
from tests.waiting import WAIT, until


class Gated(Folder):
    """A folder whose writes may be held back, or fail; notes what it wrote, in order."""

    def __init__(self, path, traffic=None):
        super().__init__(path)
        self.traffic = traffic
        self.calls = []
        self.free, self.began = threading.Event(), threading.Semaphore(0)
        self.free.set()
        self.faults = {}
        """So many of the next writes of names that contain this fail; before or after they are done."""
        self.late = False

    def write(self, name, data):
        self._do("write", name, lambda: super(Gated, self).write(name, data))

    def append(self, name, data):
        self._do("append", name, lambda: super(Gated, self).append(name, data))

    def delete(self, name):
        self._do("delete", name, lambda: super(Gated, self).delete(name))

    def _do(self, kind, name, do):
        self.began.release()
        assert self.free.wait(WAIT)
        if self.late:
            do()
        for part, times in self.faults.items():
            if part in name and times:
                self.faults[part] -= 1
                raise OSError(5, "Input/output error")
        if not self.late:
            do()
        self.calls.append((kind, name))


@pytest.fixture
def storage(tmp_path):
    return Gated(tmp_path / "run")


@pytest.fixture
def lines(storage):
    """Lines that write when told to, or when one is urgent."""
    made = quiet_lines(storage)
    yield made
    made.close()


def quiet_lines(storage):
    traffic, storage.traffic = storage.traffic, Traffic()
    made = LineWriter(RunFolder(storage))
    storage.traffic = traffic
    return made


def content(storage, name):
    path = storage.path / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# Lines.


def test_lines_of_a_file_are_written_together_and_in_order(storage, lines):
    for number in range(50):
        lines.add("metrics/a.jsonl", {"number": number})
        lines.add("events/b.jsonl", {"number": -number})
    assert storage.calls == []
    lines.flush()
    assert sorted(storage.calls) == [("append", "events/b.jsonl"), ("append", "metrics/a.jsonl")]
    assert content(storage, "metrics/a.jsonl") == [{"number": number} for number in range(50)]
    assert content(storage, "events/b.jsonl") == [{"number": -number} for number in range(50)]


def test_a_flush_writes_nothing_twice(storage, lines):
    lines.add("a.jsonl", {"number": 1})
    for _ in range(3):
        lines.flush()
    lines.add("a.jsonl", {"number": 2})
    lines.flush()
    assert content(storage, "a.jsonl") == [{"number": 1}, {"number": 2}]


def test_an_urgent_line_takes_those_before_it_along(storage, lines):
    lines.add("a.jsonl", {"number": 1})
    lines.add("a.jsonl", {"number": 2}, soon=True)
    until(lambda: len(content(storage, "a.jsonl")) == 2)


def test_a_line_waits_for_a_moment_where_files_can_grow(storage):
    lines = LineWriter(RunFolder(storage))
    lines.add("a.jsonl", {"number": 1})
    until(lambda: content(storage, "a.jsonl"))
    lines.close()


def test_close_writes_the_last(storage):
    lines = quiet_lines(storage)
    lines.add("a.jsonl", {"number": 1})
    lines.picture("samples/1.png", b"png")
    lines.close()
    assert content(storage, "a.jsonl") == [{"number": 1}]
    assert storage.read("samples/1.png") == b"png"
    assert not lines._thread.is_alive()


def test_adding_never_waits_for_the_storage(storage, lines):
    storage.free.clear()
    lines.add("a.jsonl", {"number": 0}, soon=True)
    assert storage.began.acquire(timeout=WAIT)
    for number in range(1, 30):
        lines.add("a.jsonl", {"number": number}, soon=True)
        lines.picture(f"samples/{number}.png", b"png")
    storage.free.set()
    until(lambda: content(storage, "a.jsonl") == [{"number": number} for number in range(30)])


def test_lines_stay_in_order_whoever_flushes(storage, lines):
    """The thread of the lines and that of the checkpoints both write."""
    stop = threading.Event()

    def flush():
        while not stop.is_set():
            lines.flush()

    others = [threading.Thread(target=flush) for _ in range(3)]
    for each in others:
        each.start()
    for number in range(300):
        lines.add("a.jsonl", {"number": number}, soon=number % 7 == 0)
    stop.set()
    for each in others:
        each.join(WAIT)
    lines.flush()
    assert content(storage, "a.jsonl") == [{"number": number} for number in range(300)]


def test_a_line_that_cannot_be_written_is_said_and_comes_later(storage, lines, caplog):
    storage.faults = {"a.jsonl": 1}
    with caplog.at_level(logging.WARNING):
        lines.add("a.jsonl", {"number": 1})
        lines.add("b.jsonl", {"number": 1})
        lines.flush()
    assert [record.getMessage() for record in caplog.records] == ["a.jsonl could not be written: Input/output error"]
    lines.flush()
    assert content(storage, "b.jsonl") == [{"number": 1}]
    lines.add("a.jsonl", {"number": 2}, soon=True)
    until(lambda: content(storage, "a.jsonl") == [{"number": 1}, {"number": 2}])


def test_a_storage_that_is_away_is_asked_once_at_a_time(storage, lines):
    """Each time costs all of run.patience_seconds; a run that ends must not wait for every picture in turn."""
    for number in range(5):
        lines.add(f"{number}.jsonl", {})
        lines.picture(f"{number}.png", b"png")
    storage.faults = {".": 2}
    for _ in range(2):
        before = sum(storage.faults.values())
        lines.flush()
        assert sum(storage.faults.values()) == before - 1
    lines.flush()
    assert storage.list() == sorted(f"{number}.{kind}" for number in range(5) for kind in ("jsonl", "png"))


def test_of_many_pictures_the_newest_eight_wait(storage, lines):
    for number in range(24):
        lines.picture(f"{number:02d}.png", bytes([number]))
    lines.flush()
    assert storage.list() == [f"{number:02d}.png" for number in range(16, 24)]


# Checkpoints.


@pytest.fixture
def written(storage, lines, monkeypatch):
    """A maker of due checkpoints, and `Checkpoints` over the storage."""
    for module in (checkpoint_writer, line_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    return Written(storage, lines)


class Written:
    def __init__(self, storage, lines, keep=99):
        self.storage, self.lines = storage, lines
        self.folder = RunFolder(storage)
        self.attempt = self.folder.begin_attempt()
        self.events, self.alive = [], []
        self.checkpoints = CheckpointWriter(self.folder, keep, lines, self.emit_event)
        storage.calls.clear()

    def emit_event(self, kind, **fields):
        self.events.append((kind, fields["images"]))

    def pending(self, images, best=False, to_score=False):
        pointer = Pointer(self.name(images), images, self.attempt, float(images))
        snapshot = Snapshot({"weights": {"w": torch.full((10,), float(images))}}, {"state.json": b"{}"})
        self.alive.append(weakref.ref(snapshot))
        return PendingCheckpoint(snapshot, {"images": images, "attempt": self.attempt}, pointer, best, 0.0, to_score)

    def submit(self, images, best=False, to_score=False):
        self.checkpoints.submit(self.pending(images, best, to_score))

    def begin(self, images, best=False):
        """One that is being written, and stays so."""
        self.storage.free.clear()
        while self.storage.began.acquire(blocking=False):
            pass  # Of what was written before.
        self.submit(images, best)
        assert self.storage.began.acquire(timeout=WAIT)

    def finish(self):
        self.storage.free.set()
        self.checkpoints.drain()

    def name(self, images):
        return f"{images:012d}-{self.attempt:04d}"

    def there(self):
        """The images of complete checkpoints."""
        names = self.storage.list("checkpoints")
        return [int(name[:12]) for name in names if "manifest.json" in self.storage.list(f"checkpoints/{name}")]

    def latest(self, name="latest"):
        pointer = self.folder.pointer(name)
        return pointer.images if pointer else None

    def kinds(self):
        return [event for event in self.events if event[0] != "checkpoint_failed"]


def test_a_round_never_waits(written):
    """All of these return though the storage does not."""
    written.begin(1)
    for images in range(2, 30):
        written.submit(images, best=images == 9)
        written.checkpoints.raise_fault(3600)
    assert written.latest() is None
    written.finish()


def test_a_checkpoint_is_whole_before_it_is_seen_and_lines_before_that(written, lines):
    lines.add("metrics/a.jsonl", {"images": 1})
    written.submit(1, best=True)
    written.checkpoints.drain()
    names = [name for _, name in written.storage.calls]
    files = {f"checkpoints/{written.name(1)}/{file}" for file in ("weights.safetensors", "state.json")}
    assert set(names[:2]) == files
    assert names[2:] == [
        f"checkpoints/{written.name(1)}/manifest.json", "metrics/a.jsonl", "latest.json", "best.json",
    ]  # fmt: skip
    assert written.latest() == written.latest("best") == 1
    found = checkpoint.read(written.storage, f"checkpoints/{written.name(1)}")
    assert found["state.json"] == b"{}"


def test_a_newer_one_takes_the_place_of_the_one_that_waits(written):
    written.begin(1)
    for images in (2, 3, 4):
        written.submit(images)
    written.finish()
    assert written.there() == [1, 4]
    assert written.latest() == 4
    assert written.events == [
        ("checkpoint_dropped", 2),
        ("checkpoint_dropped", 3),
        ("checkpoint", 1),
        ("checkpoint", 4),
    ]


def test_the_best_that_waits_stays_and_a_newer_best_takes_its_place(written):
    written.begin(1)
    written.submit(2, best=True)
    written.submit(3)
    written.submit(4, best=True)
    written.submit(5)
    written.finish()
    assert written.there() == [1, 4]
    assert written.latest() == written.latest("best") == 4
    assert written.kinds()[:3] == [("checkpoint_dropped", images) for images in (3, 2, 5)]


def test_three_snapshots_are_alive_at_most_and_in_the_end_the_spare_one(written):
    gc.disable()
    try:
        written.begin(1)
        for images in range(2, 12):
            pending = written.pending(images, best=images % 3 == 0)  # Three: in writing, waiting, and just taken.
            assert sum(ref() is not None for ref in written.alive) <= 3
            written.checkpoints.submit(pending)
            del pending
            assert sum(ref() is not None for ref in written.alive) <= 2
        written.finish()
        until(lambda: sum(ref() is not None for ref in written.alive) == 1)
    finally:
        gc.enable()


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


def test_a_score_that_one_was_to_have_is_that_of_the_one_in_its_place(written):
    written.storage.faults = {written.name(1): 10**9}
    written.submit(1, to_score=True)
    until(lambda: written.events)
    written.submit(2)
    written.checkpoints.drain()
    assert list(written.checkpoints.unscored) == [written.name(2)]
    written.begin(3)
    written.submit(4, to_score=True)
    written.submit(5)
    written.finish()
    assert list(written.checkpoints.unscored) == [written.name(2), written.name(5)]


# Those that a task found to be the best.


def point_best(written, images):
    """As the host does when a score came."""
    written.checkpoints.point_best(written.checkpoints.unscored[written.name(images)])
    del written.checkpoints.unscored[written.name(images)]


def test_one_that_is_to_be_the_best_is_not_deleted_before_it_is(storage, lines):
    written = Written(storage, lines, keep=1)
    written.submit(1, to_score=True)
    written.checkpoints.drain()
    written.begin(2)
    point_best(written, 1)
    written.finish()
    assert written.latest("best") == 1
    assert written.there() == [1, 2]


def test_best_json_is_moved_again_until_it_is(written):
    for images in (1, 2):
        written.submit(images, to_score=True)
        written.checkpoints.drain()
    written.storage.faults = {"best.json": 3}
    point_best(written, 1)
    until(lambda: written.latest("best") == 1)
    written.storage.faults = {"best.json": 10**9}
    point_best(written, 2)
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
    point_best(written, 1)
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
    assert len(touched) == len(set(touched)) == 3
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


@pytest.mark.parametrize("ending", ["done", "stopped"])
def test_the_last_one_is_written_though_the_best_waits(storage, values, data_folder, ending):
    state = played(values, rounds=0)
    line = StopAt()
    stream = SimpleNamespace(data=open_data(str(data_folder)))
    storage.free.clear()
    host = WorkerHost(config_of(values), state, RunFolder(Folder(storage.path)), stream, line, 1, RunProgress(), None)
    host.folder.begin_attempt()
    host.folder.storage = storage
    for images, best in ((12, False), (24, True), (36, False)):
        state.images = images
        assert not host.should_stop()
        host._best = best
        host.save()
        assert storage.began.acquire(timeout=WAIT)
    state.images = 240 if ending == "done" else 48
    line.stop = ending == "stopped"
    assert host.should_stop() == line.stop
    last = threading.Thread(target=host.save)
    last.start()
    storage.free.set()
    last.join(WAIT)
    host.finish("finish")
    found = [host.folder.pointer(name).images for name in ("best", "latest")]
    assert found == [24, state.images]
