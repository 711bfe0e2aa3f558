"""Watch of the head node of the Ray cluster. Without its GCS, Ray ends all its processes after a minute."""

import contextlib
import socket
import threading
import time

from ganrun.errors import RunError

SILENT_SECONDS = 15.0
"""Time without an answer after which the head node counts as lost."""
GONE_SECONDS = 45.0
"""Deadline for workers to save and exit. Ray ends the driver after 60 s."""
ASK_SECONDS = 2.0
"""Interval of probes, and timeout of each."""


class HeadWatch:
    """Thread that probes the GCS of a Ray cluster by TCP connections.

    Args:
        address: HOST:PORT of the GCS.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._heard = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._ask, name="head", daemon=True).start()

    @property
    def lost(self) -> bool:
        """True after SILENT_SECONDS without an answer: the workers are to save and exit."""
        return self.silent_seconds > SILENT_SECONDS

    @property
    def gone(self) -> bool:
        """True after GONE_SECONDS without an answer: the driver no longer waits for the workers."""
        return self.silent_seconds > GONE_SECONDS

    def fault(self, saved: str) -> RunError:
        """Return the error for the user; `saved` says which checkpoint the run resumes from."""
        return RunError(
            f"the head of the Ray cluster at {self.address} no longer answers; {saved}: start the cluster again "
            "and run the same command"
        )

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._heard

    def close(self) -> None:
        """Stop the probes."""
        self._over.set()

    def _ask(self) -> None:
        host, _, port = self.address.rpartition(":")
        while not self._over.wait(ASK_SECONDS):
            with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), ASK_SECONDS):
                self._heard = time.monotonic()
