"""How a command is asked to stop."""

import signal
import sys
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM: finish the round, save, leave. The second one leaves at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nsaving a checkpoint and leaving (once more: leave at once) ...", file=sys.stderr)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
