"""Channel between worker and driver: events out, stop flag and commands in."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator

from ganrun.telemetry.messages import Command, Event, Note

Answer = tuple[bool, list[Command]]
"""True if the run is to stop; and commands."""
POLL_SECONDS = 0.5


class Channel:
    """Channel to the driver. A thread exchanges events for commands, so that a round never waits.

    Args:
        exchange: sends events and returns the answer; may raise.
        listen: exchange continuously, as rank 0 does; if False, only at the end.
    """

    def __init__(self, exchange: Callable[[list[Event]], Answer], listen: bool) -> None:
        self._exchange = exchange
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._unsent: list[Event] = []
        self._ending = threading.Event()
        self.stop = False
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)
        if listen:
            self._thread.start()

    def send(self, event: Event) -> None:
        """Queue an event. The last event of a run is an `Ending`."""
        self._events.put(event)

    def commands(self) -> list[Command]:
        """Return the commands that came since the last call."""
        return [self._commands.get() for _ in range(self._commands.qsize())]

    def close(self) -> None:
        """Send the queued events and end the thread."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._hand_over()

    def _run(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            self._hand_over()

    def _hand_over(self) -> None:
        self._unsent += [self._events.get() for _ in range(self._events.qsize())]
        try:
            stop, commands = self._exchange(self._unsent)
        except Exception:
            return  # The driver does not answer: the run continues, and the events are sent again, before newer ones.
        self._unsent = []
        self.stop = stop or self.stop
        for command in commands:
            self._commands.put(command)


class _ChannelHandler(logging.Handler):
    """Handler that sends log messages to the driver."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self.channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self.channel.send(Note(record.getMessage()))


@contextlib.contextmanager
def warnings_to_channel(channel: Channel) -> Iterator[None]:
    """Show warnings of ganrun on the driver's terminal inside this block."""
    logger, handler = logging.getLogger("ganrun"), _ChannelHandler(channel)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
