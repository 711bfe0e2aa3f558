"""Asking again, so that a server that is away for a while costs time and nothing else."""

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
"""So long a request is made again before it fails."""
LONGEST_WAIT_SECONDS = 10.0
LOUD_SECONDS = 5.0
"""Faults that are over sooner are counted, but no word is said of them."""
T = TypeVar("T")
logger = logging.getLogger(__name__)


class TransientError(Exception):
    """A request failed in a way that may pass. `kind` is one word, for counting."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Traffic:
    """What went over the wire to and from one place, and what went wrong on the way."""

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Requests that failed and were made again, by kind."""


class Watch:
    """Whether a server answers, as all threads of this process see it; says so once an outage, not once a request."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._began: float | None = None
        self._said = False
        self._faults = 0

    def failed(self, text: str) -> None:
        """A request failed."""
        with self._lock:
            now = time.monotonic()
            self._began, self._faults = self._began or now, self._faults + 1
            if not self._said and now - self._began >= LOUD_SECONDS:
                self._said = True
                logger.warning("%s does not answer (%s); trying again", self.server, text)

    def answered(self) -> None:
        """A request was answered."""
        with self._lock:
            if self._began is not None and self._said:
                seconds = time.monotonic() - self._began
                logger.warning("%s answers again after %.0f s and %d faults", self.server, seconds, self._faults)
            self._began, self._said, self._faults = None, False, 0


async def persist(ask: Callable[[], Awaitable[T]], watch: Watch, traffic: Traffic, seconds: float) -> T:
    """Asks until there is an answer, with exponential backoff and full jitter, for at most so many seconds.

    Raises:
        TransientError: it failed to the last.
        Exception: what else `ask` raises, at once.
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
