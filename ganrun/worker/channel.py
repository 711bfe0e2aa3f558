"""What a worker says to the driver, and what it hears: whether to stop, and orders."""

import queue
import threading
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
"""{"kind": ..., ...}; the kinds are `started`, `images`, `tick`, `score`, `picture`, `note`, `rollback`, the events of
checkpoints and of collapse, and last of all one of `finished`, `stopped`, `failed`."""
Answer = tuple[bool, list[Message]]
"""Whether to stop; and orders, of the same form as messages."""
POLL_SECONDS = 0.5


class Line:
    """Messages out, the wish to stop and orders in, from a thread: a round never waits for it.

    Args:
        exchange: hands messages over for an answer; may raise.
        listen: whether to exchange all the time, as rank 0 does; if not, only at the end.
    """

    def __init__(self, exchange: Callable[[list[Message]], Answer], listen: bool) -> None:
        self._exchange = exchange
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ending = threading.Event()
        self.stop = False
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        if listen:
            self._thread.start()

    def say(self, kind: str, **fields: Any) -> None:
        """Queues a message."""
        self._messages.put({"kind": kind, **fields})

    def orders(self) -> list[Message]:
        """Those that came since this was last called."""
        return [self._orders.get() for _ in range(self._orders.qsize())]

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
            stop, orders = self._exchange(messages)
        except Exception:
            # The driver's side is away: the run goes on, and says it again when it is back.
            for message in messages:
                self._messages.put(message)
            return
        self.stop = stop or self.stop
        for order in orders:
            self._orders.put(order)
