"""The head of a cluster that does not answer any more is missed; one that was away for a moment is not."""

import socket
import threading

from ganrun.distributed import head as heads
from ganrun.distributed.head import Head


def test_a_head_is_missed_when_it_was_silent_for_long(monkeypatch):
    monkeypatch.setattr(heads, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(heads, "SILENT_SECONDS", 2.0)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    head = Head(f"127.0.0.1:{port}")
    listener.accept()[0].close()
    listener.close()
    wait_until(lambda: head.silent_seconds > 0.5)
    assert not head.lost
    listener = socket.create_server(("127.0.0.1", port))
    wait_until(lambda: head.silent_seconds < 0.2)
    listener.close()
    wait_until(lambda: head.lost)
    head.close()


def wait_until(so):
    for _ in range(1_000):
        if so():
            return
        threading.Event().wait(0.02)
    raise AssertionError
