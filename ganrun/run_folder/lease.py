"""The lease of a run: who may run it, taken and renewed by conditional writes to lease.json."""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ganrun.errors import RunError
from ganrun.storage import Storage

LEASE_SECONDS = 60.0


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
