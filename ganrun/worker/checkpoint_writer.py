"""Background writer of checkpoints."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.telemetry import records
from ganrun.training import checkpoint
from ganrun.training.checkpoint import Snapshot
from ganrun.worker.line_writer import LineWriter

RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class PendingCheckpoint:
    """Checkpoint to be written: snapshot, facts for its manifest, pointer, and whether to request a score of it."""

    snapshot: Snapshot
    facts: dict[str, Any]
    pointer: Pointer
    best: bool
    blocked_seconds: float
    """Time that the round waited for the snapshot."""
    to_score: bool = False


def _may_replace(newer: PendingCheckpoint, older: PendingCheckpoint) -> bool:
    return newer.best or not older.best


def _heir(newer: PendingCheckpoint, older: PendingCheckpoint) -> PendingCheckpoint:
    """Return `newer` in place of an older one that waited; it inherits the request for a score."""
    return replace(newer, to_score=newer.to_score or older.to_score)


class CheckpointWriter:
    """Thread that writes checkpoints, one at a time.

    At most one is being written and one waits. A newer one takes the place of the one that waits, unless that is the
    best so far and the newer is not: then the newer is dropped. One that fails is tried again until a newer one waits
    that may take its place by the same rule. So host memory holds three snapshots at most (one just taken), and the
    bytes of the files of one of them, whatever the storage does. Who has a last one drains before it, so that it finds
    nothing that waits.

    Args:
        folder: of the run.
        keep: so many newest stay.
        lines: are written before a checkpoint is made visible, so that a crash does not cut them off.
        emit_event: takes an event for each that is written or fails.
    """

    def __init__(
        self, folder: RunFolder, keep: int, lines: LineWriter, emit_event: Callable[[records.Emitted], None]
    ) -> None:
        self.folder, self.keep, self.lines, self.emit_event = folder, keep, lines, emit_event
        self.unsaved: str | None = None
        """Failure of the newest checkpoint; empty if it was written."""
        self.fault: BaseException | None = None
        """Exception that ended the thread: a later attempt has the run, or a fault of the program."""
        self.last_good = time.monotonic()
        """Time of the last checkpoint written."""
        self.unscored: dict[str, Pointer] = {}
        """Checkpoints whose score is pending, by name; they are not deleted."""
        self.held: frozenset[str] = frozenset()
        """Names of checkpoints that another trial of a search may copy; they are not deleted either."""
        self.spare: Snapshot | None = None
        """Written snapshot whose memory the next one reuses."""
        self._waiting: PendingCheckpoint | None = None
        self._best: Pointer | None = None
        """Next target of `best.json`."""
        self._refused: Pointer | None = None
        """Target of `best.json` whose write failed; retried after a while, and when the next checkpoint is written."""
        self._busy = self._draining = self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, pending: PendingCheckpoint) -> None:
        """Queue a checkpoint."""
        with self._changed:
            if self._waiting and not _may_replace(pending, self._waiting):
                self.emit_event(records.CheckpointDropped(images=pending.pointer.images))
                return
            if self._waiting:
                self.emit_event(records.CheckpointDropped(images=self._waiting.pointer.images))
                pending = _heir(pending, self._waiting)
            self._waiting = pending
            self._changed.notify_all()

    def point_best(self, pointer: Pointer) -> None:
        """Queue a move of `best.json` to a complete checkpoint."""
        with self._changed:
            self._best = pointer
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all queued checkpoints are written or have failed."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.fault or not (self._busy or self._has_work))
            self._draining = False

    def close(self) -> None:
        """Drain the queue and end the thread."""
        self.drain()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def raise_fault(self, max_age_seconds: float) -> None:
        """Raise if the run must not continue.

        Raises:
            RunError: another attempt has the run, or checkpoints have failed for too long.
        """
        if self.fault is not None:
            raise self.fault
        age = time.monotonic() - self.last_good
        if self.unsaved and max_age_seconds and age > max_age_seconds:
            raise RunError(
                f"{self.unsaved}, and the last good one is {age:.0f} s old, more than checkpoint.max_age_seconds: "
                f"{max_age_seconds:g}; repair the storage and run the same command"
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                wait = RETRY_SECONDS if self._best else None
                self._changed.wait_for(lambda: self._has_work or self._closing, timeout=wait)
                if self._closing:
                    return
                pending, best, self._busy = self._waiting, self._best, True
                self._waiting = None
            try:
                if best:
                    self._move_best(best)
                if pending:
                    self._persist(pending)
            except BaseException as error:
                self.fault = error
            with self._changed:
                self._busy, self.spare = False, pending.snapshot if pending else self.spare
                self._changed.notify_all()
            del pending
            if self.fault:
                return

    @property
    def _has_work(self) -> bool:
        return self._waiting is not None or self._best is not self._refused

    def take_spare(self) -> Snapshot | None:
        """Take a written snapshot, whose memory may be reused; None if there is none."""
        with self._changed:
            spare, self.spare = self.spare, None
            return spare

    def _persist(self, pending: PendingCheckpoint) -> None:
        """Write a checkpoint; retry until it is written, a newer one waits, or the queue is closed."""
        begun, size = time.monotonic(), 0
        while True:
            try:
                # Only once: it may be visible although the answer was lost, and must not be overwritten.
                size = size or self._write_files(pending)
                self.lines.flush()
                checkpoint.make_visible(self.folder, pending.pointer, pending.best)
                break
            except OSError as error:
                self.unsaved = (
                    f"checkpoint {pending.pointer.checkpoint} could not be written: {error.strerror or error}"
                )
                self.emit_event(records.CheckpointFailed(images=pending.pointer.images, message=self.unsaved))
            if self._gives_up(pending):
                return
        self.unsaved, self.last_good, self._refused = None, time.monotonic(), None
        images, name = pending.pointer.images, pending.pointer.checkpoint
        self.emit_event(
            records.CheckpointWritten(
                images=images,
                checkpoint=name,
                bytes=size,
                blocked_seconds=pending.blocked_seconds,
                upload_seconds=self.last_good - begun,
            )
        )
        if pending.to_score:
            self.unscored[name] = pending.pointer
            self.emit_event(records.ScoreWanted(images=images, checkpoint=name))
        self._delete_old(images)

    def _gives_up(self, pending: PendingCheckpoint) -> bool:
        """Wait a while. Return True if a failed checkpoint is not to be retried."""
        with self._changed:
            over = self._changed.wait_for(
                lambda: self._draining or (self._waiting and _may_replace(self._waiting, pending)),
                timeout=RETRY_SECONDS,
            )
            if over and self._waiting:
                self._waiting = _heir(self._waiting, pending)
            return bool(over)

    def _move_best(self, pointer: Pointer) -> None:
        try:
            self.folder.move_pointer("best", pointer)
            with self._changed:
                self._best, self._refused = None if self._best is pointer else self._best, None
        except OSError as error:
            self._refused = pointer
            message = f"best.json could not be pointed to {pointer.checkpoint}: {error.strerror or error}"
            self.emit_event(records.BestNotMoved(images=pointer.images, message=message))

    def _write_files(self, pending: PendingCheckpoint) -> int:
        return checkpoint.write(self.folder, pending.pointer.checkpoint, pending.snapshot.files(), pending.facts)

    def _delete_old(self, images: int) -> None:
        awaited = {*self.unscored, *self.held}
        if best := self._best:  # Read after `unscored`: it was one of them.
            awaited.add(best.checkpoint)
        try:
            checkpoint.delete_old(self.folder, self.keep, awaited)
        except OSError as error:
            message = f"an old checkpoint could not be deleted: {error.strerror or error}"
            self.emit_event(records.DeletionFailed(images=images, message=message))
