"""What a worker says to the driver, and what it hears: whether to stop."""

import queue
import threading
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
"""{"kind": ..., ...}; the kinds are `started`, `images`, `tick`, `score`, `picture`, `note`, `rollback`, the events of
checkpoints and of collapse, and last of all one of `finished`, `stopped`, `failed`."""
POLL_SECONDS = 0.5


class Line:
    """Messages out, the wish to stop in, from a thread: a round never waits for it.

    Args:
        exchange: hands messages over and returns whether the run should stop; may raise.
        listen: whether to exchange all the time, as rank 0 does; if not, only at the end.
    """

    def __init__(self, exchange: Callable[[list[Message]], bool], listen: bool) -> None:
        self._exchange = exchange
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ending = threading.Event()
        self.stop = False
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        if listen:
            self._thread.start()

    def say(self, kind: str, **fields: Any) -> None:
        """Queues a message."""
        self._messages.put({"kind": kind, **fields})

    def close(self) -> None:
        """Sends what is queued."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._hand_over()

    def _run(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            self._hand_over()

    def _hand_over(self) -> None:
        messages = [self._messages.get() for _ in range(self._messages.qsize())]
        try:
            self.stop = self._exchange(messages) or self.stop
        except Exception:
            # The driver's side is away: the run goes on, and says it again when it is back.
            for message in messages:
                self._messages.put(message)
