"""A storage that can be held back or fail, and the writers of rank 0 over it."""

import json
import threading
import weakref

import torch

from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import Folder
from ganrun.storage.retry import Traffic
from ganrun.training.checkpoint import RunProgress, Snapshot
from ganrun.training.state import StateDict
from ganrun.worker.checkpoint_writer import CheckpointWriter, PendingCheckpoint
from ganrun.worker.line_writer import LineWriter
from tests.waiting import WAIT


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


def quiet_lines(storage):
    traffic, storage.traffic = storage.traffic, Traffic()
    made = LineWriter(RunFolder(storage))
    storage.traffic = traffic
    return made


def content(storage, name):
    path = storage.path / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Written:
    def __init__(self, storage, lines, keep=99):
        self.storage, self.lines = storage, lines
        self.folder = RunFolder(storage)
        self.attempt = self.folder.begin_attempt()
        self.events, self.alive = [], []
        self.checkpoints = CheckpointWriter(self.folder, keep, lines, self.emit_event)
        storage.calls.clear()

    def emit_event(self, event):
        self.events.append((event.kind, event.images))

    def pending(self, images, best=False, to_score=False):
        pointer = Pointer(self.name(images), images, self.attempt, float(images))
        state = StateDict(
            {"weights": {"w": torch.full((10,), float(images))}},
            {"images": images, "rollback_count": 0, "recorded": []},
        )
        snapshot = Snapshot(state, RunProgress(), "")
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

    def point_best(self, images):
        """Do as the host does when a score came."""
        self.checkpoints.point_best(self.checkpoints.unscored[self.name(images)])
        del self.checkpoints.unscored[self.name(images)]
