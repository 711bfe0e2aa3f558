"""Checkpoints are written by a stated rule while the rounds go on, and no round waits for them."""

import gc
import threading
from types import SimpleNamespace

import pytest

from ganrun.data.index import open_data
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import Folder
from ganrun.telemetry.records import RunFinished
from ganrun.training import checkpoint
from ganrun.training.checkpoint import RunProgress
from ganrun.worker.host import WorkerHost
from tests.conftest import config_of
from tests.ranks import StopAt
from tests.training.test_checkpoint import played
from tests.waiting import WAIT, until
from tests.worker.writing import Written


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
    files = ("weights.safetensors", "state.json", "config.yaml")
    assert set(names[:3]) == {f"checkpoints/{written.name(1)}/{file}" for file in files}
    assert names[3:] == [
        f"checkpoints/{written.name(1)}/manifest.json", "metrics/a.jsonl", "latest.json", "best.json",
    ]  # fmt: skip
    assert written.latest() == written.latest("best") == 1
    found = checkpoint.read(written.storage, f"checkpoints/{written.name(1)}")
    assert checkpoint.Snapshot.parse(found, "x").state.record["images"] == 1


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


def test_one_that_is_to_be_the_best_is_not_deleted_before_it_is(storage, lines):
    written = Written(storage, lines, keep=1)
    written.submit(1, to_score=True)
    written.checkpoints.drain()
    written.begin(2)
    written.point_best(1)
    written.finish()
    assert written.latest("best") == 1
    assert written.there() == [1, 2]


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
    host.finish(RunFinished)
    found = [host.folder.pointer(name).images for name in ("best", "latest")]
    assert found == [24, state.images]
