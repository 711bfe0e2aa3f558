"""The channel of a worker to the driver: events out; the wish to stop, and commands, in."""

import queue
import threading
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
"""{"kind": ..., ...}; the kinds are `started`, `images`, `tick`, `score`, `picture`, `note`, `profile`, those of
checkpoints, scores, transitions and collapse, and last of all one of `finished`, `stopped`, `failed`."""
Answer = tuple[bool, list[Event]]
"""Whether to stop; and commands, of the same form as events: `score_found`, `exploit`, `release`, `drain`."""
POLL_SECONDS = 0.5


class Channel:
    """Sends events and receives the wish to stop and commands, from a thread: a round never waits for it.

    Args:
        exchange: hands events over for an answer; may raise.
        listen: whether to exchange all the time, as rank 0 does; if not, only at the end.
    """

    def __init__(self, exchange: Callable[[list[Event]], Answer], listen: bool) -> None:
        self._exchange = exchange
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ending = threading.Event()
        self.stop = False
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)
        if listen:
            self._thread.start()

    def send(self, kind: str, **fields: Any) -> None:
        """Queues an event."""
        self._events.put({"kind": kind, **fields})

    def commands(self) -> list[Event]:
        """The commands that came since this was last called."""
        return [self._commands.get() for _ in range(self._commands.qsize())]

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
        events = [self._events.get() for _ in range(self._events.qsize())]
        try:
            stop, commands = self._exchange(events)
        except Exception:
            # The driver's side is away: the run goes on, and says it again when it is back.
            for event in events:
                self._events.put(event)
            return
        self.stop = stop or self.stop
        for command in commands:
            self._commands.put(command)
