"""Graceful stop on SIGINT and SIGTERM."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Handle signals within the block, and yield the event that the first SIGINT or SIGTERM sets.

    The caller then finishes the round, saves a checkpoint and exits. A second signal raises KeyboardInterrupt. In
    another thread than the main one, where Python handles no signals, nothing is changed.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nsaving a checkpoint, then stopping (press again to stop at once) ...", file=sys.stderr)

    with contextlib.ExitStack() as before:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before.callback(signal.signal, number, signal.signal(number, on_signal))
        yield stop
