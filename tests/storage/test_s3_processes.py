"""One S3 storage in many threads and processes, and no secret in what they show."""

import base64
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganrun.storage import open_storage
from tests.s3 import CREDENTIALS
from tests.storage.making import fails
from tests.storage.proxy import Fault
from tests.waiting import WAIT, until

pytestmark = pytest.mark.usefixtures("client_of_the_server")

SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


def test_no_secret_comes_out(s3, proxy, caplog):
    caplog.set_level(logging.INFO)
    place = open_storage(s3, patience_seconds=0.1)
    place.write("x", b"1")
    proxy.faults = [Fault(403), Fault("cut", times=5)]
    said = [repr(fails(place.read, "x")), repr(fails(place.list)), repr(place), repr(vars(place)), caplog.text]
    said += [repr(pickle.dumps(place)), pickle.dumps(place).decode("latin-1")]
    for text in said:
        assert SECRET not in text
        assert base64.b64encode(SECRET.encode()).decode() not in text
        assert CREDENTIALS["AWS_ACCESS_KEY_ID"] not in text


def test_a_pickled_storage_works(s3):
    place = open_storage(s3, patience_seconds=7)
    place.write("x", b"1")
    twin = pickle.loads(pickle.dumps(place))
    assert (twin.read("x"), twin.uri, twin.patience_seconds) == (b"1", s3, 7)


def test_many_threads_share_one(s3, proxy):
    """There are more threads than connections, and some requests fail."""
    place = open_storage(s3)
    proxy.faults = [Fault(kind, times=3) for kind in ("reset", 500, "lost", 503)]

    def work(number):
        data = os.urandom(10_000)
        place.write(f"{number}", data)
        return place.read(f"{number}") == data

    with ThreadPoolExecutor(48) as pool:
        assert all(pool.map(work, range(96)))
    assert place.traffic.requests == 192 + place.traffic.faults.total()
    assert len(proxy.seen) == 192 + 12


def test_transfers_that_were_ended_leave_the_pool_in_order(s3, proxy, impatient):
    place, data = open_storage(s3), os.urandom(50_000)
    place.write("x", data)
    proxy.faults = [Fault("slow", "GET", times=40), Fault("cut", "GET", times=40)]
    with ThreadPoolExecutor(40) as pool:
        assert all(read == data for read in pool.map(place.read, ["x"] * 40))
    assert place.traffic.faults["timeout"] >= 40
    assert place.traffic.faults.total() >= 80


@pytest.mark.parametrize("busy", [False, True])
def test_a_storage_used_before_a_fork_works_after_it(s3, busy):
    place = open_storage(s3)
    place.write("x", b"1")
    done = threading.Event()

    def read():
        while not done.is_set():
            place.read("x")

    threads = [threading.Thread(target=read) for _ in range(4 * busy)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(1 + busy):
            child = os.fork()
            if not child:
                signal.alarm(int(WAIT))
                os._exit(0 if place.read("x") == b"1" and open_storage(s3).list() == ["x"] else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert place.read("x") == b"1"
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_ctrl_c_ends_a_request_at_once(s3, proxy):
    """The request ends in the event loop too: it is not sent later."""
    code = """
import signal, sys, time
from ganrun.storage import open_storage
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background jobs begin with it ignored.
place = open_storage(sys.argv[1], patience_seconds=PATIENCE)
place.write("before", b"")
try:
    place.write("stuck", b"")
except KeyboardInterrupt:
    place.write("after", b"")
    requests = place.traffic.requests
    time.sleep(1)
    sys.exit(7 if place.traffic.requests == requests else 1)
"""
    proxy.faults = [Fault(503, "stuck", times=10_000)]
    command = [sys.executable, "-c", code.replace("PATIENCE", f"{WAIT}"), s3]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: any("stuck" in request for request in proxy.seen) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=WAIT / 2)[1]  # It does not wait for the end of its patience.
    assert (process.returncode, said) == (7, "")
    assert open_storage(s3).list() == ["after", "before"]
