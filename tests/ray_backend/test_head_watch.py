"""The head of a cluster that does not answer any more is missed; one that was away for a moment is not."""

import socket
from types import SimpleNamespace

from ganrun.ray_backend import head_watch as heads
from ganrun.ray_backend.head_watch import HeadWatch
from tests.waiting import until


def test_a_head_is_missed_when_it_was_silent_for_long(monkeypatch):
    clock = SimpleNamespace(seconds=0, monotonic=lambda: clock.seconds)
    monkeypatch.setattr(heads, "time", clock)
    monkeypatch.setattr(heads, "ASK_SECONDS", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    head = HeadWatch(f"127.0.0.1:{port}")
    listener.accept()[0].close()
    listener.close()
    # Time passes second by second, as long as an answer that was under way may still be heard.
    until(lambda: silent_for(head, clock, 10))
    assert not head.lost
    listener = socket.create_server(("127.0.0.1", port))
    until(lambda: head.silent_seconds == 0)
    assert not head.lost
    listener.close()
    until(lambda: silent_for(head, clock, int(heads.SILENT_SECONDS) + 1))
    assert head.lost
    head.close()


def silent_for(head, clock, seconds):
    clock.seconds += head.silent_seconds < seconds
    return head.silent_seconds == seconds
