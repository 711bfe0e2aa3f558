"""Events reach the driver in their order, whatever fails on the way."""

from ganrun.telemetry.messages import Event, Note
from ganrun.worker.channel import Answer, Channel


def test_events_of_a_failed_exchange_come_before_those_that_came_meanwhile():
    received: list[Event] = []
    first, second, last = (Note(text) for text in ("first", "second", "last"))
    faults = [OSError("no driver"), OSError("no driver")]

    def exchange(events: list[Event]) -> Answer:
        if faults:
            if len(faults) == 2:
                channel.send(last)
            raise faults.pop()
        received.extend(events)
        return False, []

    channel = Channel(exchange, listen=False)
    channel.send(first)
    channel.send(second)
    for _ in range(4):
        channel.close()
    assert received == [first, second, last]
