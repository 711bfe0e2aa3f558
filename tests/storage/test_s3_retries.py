"""Requests to S3 that fail for a while are retried, counted and logged once."""

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganrun.storage import open_storage, retry
from tests.s3 import BUCKET
from tests.storage.making import fails
from tests.storage.proxy import Fault
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("client_of_the_server")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(500), "500"),
        (Fault(503), "503"),
        (Fault("reset"), "connection"),
        (Fault("lost"), "connection"),
        (Fault("cut"), "cut"),
        (Fault("slow"), "timeout"),
        (Fault("hang"), "timeout"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else value,
)
def test_what_passes_is_asked_again_and_counted(s3, proxy, request, fault, kind):
    data = os.urandom(20_000)
    place = open_storage(s3)
    place.write("x", data)
    assert not place.traffic.faults
    if silent := kind == "timeout":
        request.getfixturevalue("impatient")
    fault = Fault(fault.kind, times=2)
    proxy.faults, proxy.seen = [fault], []
    assert place.read("x") == data
    # A connection from the pool that is found closed is taken for an old one: aiohttp asks again by itself, once.
    assert place.traffic.faults.keys() == {kind}
    assert place.traffic.faults[kind] in (2, 2 - (kind == "connection")) or silent
    assert len(proxy.seen) == 3 or (silent and len(proxy.seen) > 3)
    assert place.traffic.requests == 2 + place.traffic.faults.total()
    assert (place.traffic.bytes_written, place.traffic.bytes_read) == (20_000, 20_000)
    fault.times = 1
    if fault.kind not in ("cut", "slow"):  # An answer to a PUT is too short to be cut.
        place.write("x", data[::-1])
        assert place.read("x") == data[::-1]
        assert len(proxy.seen) == 6 or (silent and len(proxy.seen) > 6)


def test_a_listing_that_is_cut_is_asked_again(s3, proxy):
    place = open_storage(s3)
    for number in range(9):
        place.write(f"x{number}", b"")
    proxy.faults = [Fault("cut", "GET .*list-type", times=2)]
    assert len(place.list()) == 9
    assert place.traffic.faults.total() == 2


def test_an_answer_that_is_no_xml_is_asked_again(s3, proxy):
    place = open_storage(s3)
    place.write("x", b"")
    proxy.faults = [Fault("garbled", "list-type", times=2)]
    assert place.list() == ["x"]
    assert place.traffic.faults.total() == 2


@pytest.mark.parametrize("fault", ["lost", "hang", 503])
def test_a_conditional_write_is_made_once_and_its_maker_told_so(s3, proxy, impatient, fault):
    place = open_storage(s3)
    proxy.faults = [Fault(fault, "^PUT")]
    assert place.create("x", b"mine")
    assert not place.create("x", b"mine")
    version = place.read_version("x")[1]
    proxy.faults = [Fault(fault, "^PUT")]
    assert place.replace("x", b"next", version)
    assert not place.replace("x", b"next", version)
    assert place.read("x") == b"next"


def test_of_two_equal_creations_with_lost_answers_one_wins(s3, proxy):
    """The bytes are equal, so the winner is known only by the id in the object's metadata."""
    proxy.faults = [Fault("lost", "^PUT", times=4)]
    places = [open_storage(s3) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(lambda place: place.create("empty", b""), places)) == [False] * 3 + [True]


class Clock:
    """Replacement of the module `time` in retry.py. The test moves it."""

    seconds = 100.0

    def monotonic(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def test_the_wait_is_bounded(s3, proxy, clock):
    place = open_storage(s3, patience_seconds=1.4)
    proxy.faults = [Fault(503, times=1000)]
    proxy.on_request = lambda request: setattr(clock, "seconds", clock.seconds + 0.5)
    error = fails(place.read, "x")
    assert clock.seconds <= 101.5
    assert error.filename == f"{s3}/x"
    assert error.strerror == f"no answer from {proxy.url} for 1 s (503 SlowDown)"
    assert len(proxy.seen) == place.traffic.faults["503"] > 1


def test_an_outage_is_said_once_and_so_is_its_end(s3, proxy, clock, caplog):
    place = open_storage(s3)
    place.write("x", b"1")
    proxy.faults = [Fault(503)]
    place.read("x")
    assert not caplog.messages  # Over before anyone could care.
    proxy.faults = [Fault(503, times=10_000)]
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(place.read, "x") for _ in range(8)]
        until(lambda: place.traffic.faults["503"] > 8)
        assert not caplog.messages
        clock.seconds += 7
        until(lambda: caplog.messages)
        proxy.faults = []
        assert {read.result() for read in reads} == {b"1"}
    began, over = caplog.messages
    assert began == f"s3://{BUCKET} at {proxy.url} does not answer (503 SlowDown); retrying"
    assert re.fullmatch(rf"s3://{BUCKET} at {proxy.url} answers again after 7 s and \d+ faults", over)


def test_a_name_that_is_not_in_the_dns(s3, own_client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    place = open_storage(s3, patience_seconds=0.3)
    error = fails(place.read, "x")
    assert "no answer from http://no-such-host.invalid" in error.strerror
    assert place.traffic.faults["connection"] > 0


def test_a_server_killed_and_restarted_under_way(s3, s3_server):
    place = open_storage(s3)
    place.write("count", b"0")
    done = threading.Event()
    written: dict[int, int] = {}

    def work(number: int) -> int:
        turn = 0
        while not done.is_set():
            place.write(f"{number}", b"%d" % turn)
            written[number] = turn
            assert place.read(f"{number}") == b"%d" % turn
            assert "count" in place.list()
            turn += 1
        return turn

    def count() -> int:
        total = 0
        while not done.is_set():
            data, version = place.read_version("count")
            assert place.replace("count", b"%d" % (int(data) + 1), version)
            total += 1
        return total

    with ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(work, number) for number in range(6)]
        counting = pool.submit(count)
        until(lambda: len(written) == 6)
        s3_server.kill()
        until(lambda: place.traffic.faults.total() >= 7)
        s3_server.start()
        before = dict(written)
        until(lambda: all(written[number] > before[number] + 1 for number in before))
        done.set()
        assert all(job.result() > 0 for job in jobs)
        assert place.read("count") == b"%d" % counting.result()
    assert place.traffic.faults.total() > 0
