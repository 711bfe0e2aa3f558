"""Waits for another thread or process. The deadline is generous: it only catches hangs, not a slow machine."""

import threading
from collections.abc import Callable
from typing import Any

WAIT = 600.0
"""Seconds after which whatever a test waits for is not going to happen."""
LOOK_SECONDS = 0.02


def until(is_so: Callable[[], Any], why_not: Callable[[], Any] = lambda: "it did not happen") -> None:
    """Return once a condition is true. Uses no clock, since a test may have replaced it.

    Raises:
        AssertionError: it never became true; the message is that of `why_not`.
    """
    for _ in range(int(WAIT / LOOK_SECONDS)):
        if is_so():
            return
        threading.Event().wait(LOOK_SECONDS)
    raise AssertionError(why_not())
