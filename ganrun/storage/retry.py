"""Retries requests with exponential backoff, so that an outage of the server delays a run but does not end it."""

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

PATIENCE_SECONDS = 120.0
"""Default retry budget of a request."""
LONGEST_WAIT_SECONDS = 10.0
"""Cap of the backoff between two attempts."""
LOUD_SECONDS = 5.0
"""Outages shorter than this are counted but not logged."""
T = TypeVar("T")
logger = logging.getLogger(__name__)


class TransientError(Exception):
    """A request failed, but a retry may succeed. `kind` is one word such as `timeout` or `503`, for counters."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Traffic:
    """Counters of requests to one storage."""

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Failed attempts by kind, see `TransientError`."""


class Watch:
    """Tracks whether a server answers, over all threads. Logs one warning per outage instead of one per request."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._outage_start: float | None = None
        self._logged = False
        self._faults = 0

    def failed(self, text: str) -> None:
        """Record a failed attempt. `text` says why, for the log."""
        with self._lock:
            now = time.monotonic()
            self._outage_start, self._faults = self._outage_start or now, self._faults + 1
            if not self._logged and now - self._outage_start >= LOUD_SECONDS:
                self._logged = True
                logger.warning("%s does not answer (%s); retrying", self.server, text)

    def answered(self) -> None:
        """Record an answer, which ends an outage."""
        with self._lock:
            if self._outage_start is not None and self._logged:
                seconds = time.monotonic() - self._outage_start
                logger.warning("%s answers again after %.0f s and %d faults", self.server, seconds, self._faults)
            self._outage_start, self._logged, self._faults = None, False, 0


async def persist(ask: Callable[[], Awaitable[T]], watch: Watch, traffic: Traffic, seconds: float) -> T:
    """Call `ask` until it succeeds, with exponential backoff and full jitter.

    Args:
        ask: sends the request; raises TransientError if a retry makes sense.
        watch: state of the server.
        traffic: counters of the storage.
        seconds: retry budget.

    Raises:
        TransientError: the last error, when the budget is spent.
        Exception: any other error of `ask`, at once.
    """
    deadline, tries = time.monotonic() + seconds, 0
    while True:
        traffic.requests += 1
        try:
            answer = await ask()
        except TransientError as fault:
            traffic.faults[fault.kind] += 1
            watch.failed(str(fault))
            wait = random.uniform(0, min(LONGEST_WAIT_SECONDS, 0.2 * 2**tries))
            if time.monotonic() + wait > deadline:
                raise
            await asyncio.sleep(wait)
            tries += 1
        else:
            watch.answered()
            return answer
