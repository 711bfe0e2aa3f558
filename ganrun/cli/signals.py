"""Graceful stop on SIGINT and SIGTERM."""

import signal
import sys
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """Install signal handlers, and return the event that the first SIGINT or SIGTERM sets.

    The caller then finishes the round, saves a checkpoint and exits. A second signal raises KeyboardInterrupt.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nsaving a checkpoint, then stopping (press again to stop at once) ...", file=sys.stderr)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
