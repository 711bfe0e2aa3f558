"""Lease of a run: the right to run it, taken and renewed by conditional writes to lease.json."""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ganrun.errors import RunError
from ganrun.run_folder.process_identity import ProcessIdentity
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import Storage

LEASE_SECONDS = 60.0
"""Time until an unrenewed lease expires."""
WAIT_SECONDS = 2.0
"""Interval of attempts of a command that waits for a lease."""


class LeaseHeldError(RunError):
    """Another process holds the lease of the run."""


class Lease:
    """Right to run one run: taken by a conditional write and renewed from a thread.

    A lease is free once it expires, or once this machine proves that its holder is dead.

    Args:
        storage: the run's folder.
        on_loss: called once if the lease could not be renewed before another process took it.
        seconds: time until the lease expires without renewal.

    Raises:
        LeaseHeldError: another process holds the lease.
        RunError: lease.json is corrupt.
    """

    NAME = "lease.json"

    def __init__(self, storage: Storage, on_loss: Callable[[], None], seconds: float = LEASE_SECONDS) -> None:
        self.storage, self.seconds, self._on_loss = storage, seconds, on_loss
        self._id = uuid.uuid4().hex
        if dead := self._take():
            with contextlib.suppress(OSError):  # It is only counted.
                RunFolder(storage).log_death(dead)
        self.lost = False
        """True once another process has taken the lease."""
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @staticmethod
    def parse(data: bytes) -> dict[str, Any]:
        """Parse the content of lease.json.

        Raises:
            RunError: the content is corrupt.
        """
        try:
            lease = json.loads(data)
            float(lease["expires"]), str(lease["id"]), str(lease["holder"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"lease.json of the run is corrupt ({error}); delete it if no process runs the run"
            ) from error
        return dict(lease)

    @staticmethod
    def is_live(lease: dict[str, Any], now: float) -> bool:
        """Return True unless the lease has expired or its holder is provably dead."""
        holder = ProcessIdentity.parse(lease.get("process"))
        return bool(lease["expires"] > now) and not (holder and holder.is_dead())

    def release(self) -> None:
        """Stop renewing and delete the lease, if it is still ours."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError, RunError):  # The lease expires by itself.
            found = self.storage.read_version(self.NAME)
            if found and self._is_mine(found[0]):
                self.storage.delete(self.NAME)

    def _take(self) -> str | None:
        """Write the lease; check the holder again if another process was faster.

        Returns:
            The dead holder that it was taken from; None if it was free.
        """
        dead: str | None = None
        while True:
            found = self.storage.read_version(self.NAME)
            if found is None:
                self.storage.create(self.NAME, self._content())
            else:
                self._refuse_if_live(found[0])
                dead = dead if self._is_mine(found[0]) else self.parse(found[0])["holder"]
                self.storage.replace(self.NAME, self._content(), found[1])
            written = self.storage.read_version(self.NAME)
            if written and self._is_mine(written[0]):
                return dead

    def _refuse_if_live(self, data: bytes) -> None:
        lease, now = self.parse(data), self.storage.now()
        if self.is_live(lease, now) and not self._is_mine(data):
            until = datetime.fromtimestamp(lease["expires"]).strftime("%H:%M:%S")
            raise LeaseHeldError(
                f"{self.storage.uri} is held by {lease['holder']} until {until} ({lease['expires'] - now:.0f} s from "
                "now; a live process renews it): stop that process, run the same command with --wait, or choose "
                "another run.name"
            )

    def _content(self) -> bytes:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        lease: dict[str, Any] = {"id": self._id, "holder": holder, "expires": self.storage.now() + self.seconds}
        if identity := ProcessIdentity.of_this_process():
            lease["process"] = asdict(identity)
        return json.dumps(lease).encode()

    def _renew(self) -> None:
        while not self._released.wait(self.seconds / 4):
            try:
                if not self._renew_once():
                    break
            except OSError:
                continue  # During an outage of the storage no other process can take the lease either.
            except RunError:
                break
        else:
            return
        self.lost = True
        self._on_loss()

    def _renew_once(self) -> bool:
        """Renew the lease; return False if it is no longer ours."""
        found = self.storage.read_version(self.NAME)
        if not found or not self._is_mine(found[0]):
            return False
        return self.storage.replace(self.NAME, self._content(), found[1])

    def _is_mine(self, data: bytes) -> bool:
        return bool(self.parse(data)["id"] == self._id)


def take_lease(storage: Storage, stop: threading.Event, wait: bool, say: Callable[[str], None]) -> Lease:
    """Take the lease of a run for a command. `stop` is set if the lease is lost.

    Args:
        storage: the run's folder.
        stop: the command's stop event; it also ends the wait.
        wait: wait while another process holds the lease.
        say: called once with a line that names the holder.

    Raises:
        LeaseHeldError: another process holds the lease, and `wait` is False.
        KeyboardInterrupt: the command was stopped while it waited.
    """
    said = False
    while True:
        try:
            return Lease(storage, on_loss=stop.set)
        except LeaseHeldError as error:
            if not wait:
                raise
            if not said:
                holder, said = str(error).partition(" until ")[0], True
                say(f"{holder}: waiting until it is free")
        if stop.wait(WAIT_SECONDS):
            raise KeyboardInterrupt
