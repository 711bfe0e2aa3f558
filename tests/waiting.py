"""Waiting for what another thread or process does. On a busy machine that takes its time: a deadline is for hangs."""

import threading
from collections.abc import Callable
from typing import Any

WAIT = 600.0
"""Seconds after which whatever a test waits for is not going to happen."""
LOOK_SECONDS = 0.02


def until(is_so: Callable[[], Any], why_not: Callable[[], Any] = lambda: "it did not happen") -> None:
    """Returns when it is so. Knows no clock, since a test may have one of its own.

    Raises:
        AssertionError: it does not become so; with what `why_not` says.
    """
    for _ in range(int(WAIT / LOOK_SECONDS)):
        if is_so():
            return
        threading.Event().wait(LOOK_SECONDS)
    raise AssertionError(why_not())
