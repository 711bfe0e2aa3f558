"""Whether the head of the Ray cluster still answers: without it Ray ends all of its processes after a minute."""

import contextlib
import socket
import threading
import time

from ganrun.errors import RunError

SILENT_SECONDS = 15.0
"""A head that was silent for so long is lost."""
GONE_SECONDS = 45.0
"""By then workers that can save and leave have done so; Ray ends the driver too after a minute."""
ASK_SECONDS = 2.0


class HeadWatch:
    """The address where Ray is known by all, asked from a thread of its own.

    Args:
        address: host:port.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._heard = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._ask, name="head", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether it was silent for too long: workers are to save and leave."""
        return self.silent_seconds > SILENT_SECONDS

    @property
    def gone(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.silent_seconds > GONE_SECONDS

    def fault(self, saved: str) -> RunError:
        """What to tell the user; `saved` says what there is to go on from."""
        return RunError(
            f"the head of the Ray cluster at {self.address} does not answer any more; {saved}: start the cluster again "
            "and run the same command"
        )

    @property
    def silent_seconds(self) -> float:
        """So long it has not answered."""
        return time.monotonic() - self._heard

    def close(self) -> None:
        """It is not asked any more."""
        self._over.set()

    def _ask(self) -> None:
        host, _, port = self.address.rpartition(":")
        while not self._over.wait(ASK_SECONDS):
            with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), ASK_SECONDS):
                self._heard = time.monotonic()
