"""The folder of a run: who may write to it, what its pointers point to, its events and metrics.

config.yaml latest.json best.json lease.json checkpoints/ metrics/ events/ samples/
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ganrun.errors import RunError, UserError
from ganrun.storage import Storage, open_storage

LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Pointer:
    """`latest.json` or `best.json`: a complete checkpoint, and the attempt that moved the pointer."""

    checkpoint: str
    images: int
    attempt: int
    score: float | None = None


class RunFolder:
    """The records of a run, by name."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def pointer(self, name: str) -> Pointer | None:
        """Where `latest` or `best` points; None before the first checkpoint.

        Raises:
            RunError: the pointer is damaged. Without it the run would begin anew over its own checkpoints.
        """
        found = self.storage.read_version(f"{name}.json")
        return self._parse(name, found[0]) if found else None

    def move_pointer(self, name: str, pointer: Pointer) -> None:
        """Points `latest` or `best` elsewhere.

        Raises:
            RunError: a later attempt has the run: this one was cut off and must not write.
        """
        fields = {key: value for key, value in asdict(pointer).items() if value is not None}
        data = json.dumps(fields).encode()
        while True:
            found = self.storage.read_version(f"{name}.json")
            moved = self._parse(name, found[0]).attempt if found else 0
            # The list is for a pointer that the newer attempt found nowhere and so could not make its own.
            if (attempt := max(moved, self._newest_attempt())) > pointer.attempt:
                raise RunError(f"{self.storage.uri}: attempt {pointer.attempt} was overtaken by attempt {attempt}")
            if found is None:
                if self.storage.create(f"{name}.json", data):
                    return
            elif self.storage.replace(f"{name}.json", data, found[1]):
                return

    def begin_attempt(self, rollback_count: int = 0, after: int | None = None) -> int:
        """The number of a new attempt, which no other has. From now on older ones cannot move the pointers.

        Args:
            rollback_count: of its noise.
            after: the attempt that is to go on as the new one; unset, any.

        Raises:
            RunError: a later one than `after` has the run.
        """
        attempt = 1 + (self._newest_attempt() if after is None else after)
        fields = {"time": time.time(), "kind": "attempt", "rollback_count": rollback_count}
        while not self.storage.create(f"events/{attempt:04d}.jsonl", (json.dumps(fields) + "\n").encode()):
            if after is not None:
                raise RunError(f"{self.storage.uri}: attempt {after} was overtaken by attempt {attempt}")
            attempt += 1
        if latest := self.pointer("latest"):
            self.move_pointer("latest", Pointer(latest.checkpoint, latest.images, attempt, latest.score))
        return attempt

    def rollback_count(self) -> int:
        """Of the newest attempt's noise: how often the run was rolled back."""
        attempt = self._newest_attempt()
        if not attempt:
            return 0
        line = self.storage.read(f"events/{attempt:04d}.jsonl").partition(b"\n")[0]
        try:
            fields = json.loads(line)
            return int(fields.get("rollback_count", fields.get("generation", 0)))  # The latter in format 1.
        except (ValueError, AttributeError, TypeError):
            return 0  # The line of an older ganrun, or damaged; the checkpoint has its own.

    def _newest_attempt(self) -> int:
        names = [name.partition(".")[0] for name in self.storage.list("events")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _parse(self, name: str, data: bytes) -> Pointer:
        try:
            pointer = Pointer(**json.loads(data))
            if ".." in pointer.checkpoint.split("/"):
                raise ValueError(f"{pointer.checkpoint!r} is no name of a checkpoint")
            return pointer
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{self.storage.uri}/{name}.json is damaged ({error}); write into it which of checkpoints/ to go on "
                'from, as {"checkpoint": name of the folder, "images": ..., "attempt": ...} of its manifest.json'
            ) from error


def find_checkpoint(where: str) -> tuple[Storage, str]:
    """The storage of a run, and below it the directory of its newest checkpoint; or of the checkpoint that is given.

    Raises:
        UserError: there is neither.
    """
    place = where.rstrip("/")
    parent, _, name = place.rpartition("/")
    if "manifest.json" in open_storage(place).list():
        return open_storage(parent or "."), name
    storage = open_storage(place)
    latest = RunFolder(storage).pointer("latest")
    if latest is None:
        raise UserError(f"{where}: neither a run with a checkpoint nor a checkpoint; runs are at run.storage/run.name")
    return storage, f"checkpoints/{latest.checkpoint}"


class Lease:
    """The right to run one run: taken by a conditional write, renewed from a thread, free when it expires.

    Args:
        storage: of the run.
        on_loss: called once if the lease could not be kept.
    """

    NAME = "lease.json"

    def __init__(self, storage: Storage, on_loss: Callable[[], None], seconds: float = LEASE_SECONDS) -> None:
        self.storage, self.seconds, self._on_loss = storage, seconds, on_loss
        self._id = uuid.uuid4().hex
        self._take()
        self.lost = False
        """Whether it could not be kept."""
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @staticmethod
    def parse(data: bytes) -> dict[str, Any]:
        """The content of lease.json.

        Raises:
            RunError: it is damaged.
        """
        try:
            lease = json.loads(data)
            float(lease["expires"]), str(lease["id"]), str(lease["holder"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"lease.json of the run is damaged ({error}); delete it if no process runs the run"
            ) from error
        return dict(lease)

    def release(self) -> None:
        """Frees the run for others, if it is still ours."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError, RunError):  # It expires by itself.
            found = self.storage.read_version(self.NAME)
            if found and self._is_mine(found[0]):
                self.storage.delete(self.NAME)

    def _take(self) -> None:
        """Writes the lease; whoever was faster is looked at again."""
        while True:
            found = self.storage.read_version(self.NAME)
            if found is None:
                self.storage.create(self.NAME, self._content())
            else:
                self._refuse_if_live(found[0])
                self.storage.replace(self.NAME, self._content(), found[1])
            written = self.storage.read_version(self.NAME)
            if written and self._is_mine(written[0]):
                return

    def _refuse_if_live(self, data: bytes) -> None:
        lease = self.parse(data)
        left = lease["expires"] - self.storage.now()
        if left > 0 and not self._is_mine(data):
            until = datetime.fromtimestamp(lease["expires"]).strftime("%H:%M:%S")
            raise RunError(
                f"{self.storage.uri} is held by {lease['holder']} until {until} ({left:.0f} s from now; a live "
                "one renews it): stop that process, or wait until then, or choose another run.name"
            )

    def _content(self) -> bytes:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        lease = {"id": self._id, "holder": holder, "expires": self.storage.now() + self.seconds}
        return json.dumps(lease).encode()

    def _renew(self) -> None:
        while not self._released.wait(self.seconds / 4):
            try:
                if not self._renew_once():
                    break
            except OSError:
                continue  # Nobody else can take it while the storage is away; whether one has, it will tell.
            except RunError:
                break
        else:
            return
        self.lost = True
        self._on_loss()

    def _renew_once(self) -> bool:
        """Gives the lease its full time again, if it still is ours; whether it is."""
        found = self.storage.read_version(self.NAME)
        if not found or not self._is_mine(found[0]):
            return False
        return self.storage.replace(self.NAME, self._content(), found[1])

    def _is_mine(self, data: bytes) -> bool:
        return bool(self.parse(data)["id"] == self._id)
