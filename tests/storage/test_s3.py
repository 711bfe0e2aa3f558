"""S3 when things go wrong: a real server, and before it a proxy for what a server does not do on demand."""

import base64
import datetime
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganrun.errors import UserError
from ganrun.storage import check_rights, matching, open_storage, retry, s3_client
from ganrun.storage import s3 as module
from ganrun.storage import s3_errors as s3_faults
from tests.s3 import BUCKET, CREDENTIALS
from tests.storage.proxy import Fault, proxied
from tests.waiting import WAIT, until

SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


CLIENTS: dict[str, dict[int, object]] = {}
"""Clients read the environment when they are made; to make one takes long, so that they are shared by endpoint."""


@pytest.fixture(autouse=True)
def client_of_the_server(s3, monkeypatch):
    """And no long waits."""
    use(monkeypatch, CLIENTS.setdefault(os.environ["AWS_ENDPOINT_URL"], {}))
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)


@pytest.fixture(scope="module")
def the_proxy(s3_server):
    with proxied(s3_server.ports["s3"]) as proxy:
        yield proxy


@pytest.fixture
def proxy(client_of_the_server, the_proxy, monkeypatch):
    the_proxy.faults, the_proxy.seen, the_proxy.on_request = [], [], lambda request: None
    monkeypatch.setenv("AWS_ENDPOINT_URL", the_proxy.url)
    use(monkeypatch, CLIENTS.setdefault(the_proxy.url, {}))
    return the_proxy


@pytest.fixture
def own_client(proxy, monkeypatch):
    """A new client, which reads what the test sets."""
    use(monkeypatch, {})


@pytest.fixture
def impatient(own_client, monkeypatch):
    """On a busy machine the server itself may be silent for so long: then there are more faults than were ordered."""
    monkeypatch.setattr(s3_client, "SILENT_SECONDS", 1.0)


def use(monkeypatch, clients):
    monkeypatch.setattr(s3_client, "_filesystems", clients)
    monkeypatch.setattr(s3_client, "_watches", {})


def fails(action, *arguments):
    """The OSError that it ends with: one line, with the address of the object."""
    with pytest.raises(OSError) as caught:
        action(*arguments)
    assert str(caught.value.filename).startswith("s3://")
    assert caught.value.strerror
    assert "\n" not in caught.value.strerror
    return caught.value


# What passes.


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
    """Whose it is cannot be told by the bytes."""
    proxy.faults = [Fault("lost", "^PUT", times=4)]
    places = [open_storage(s3) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(lambda place: place.create("empty", b""), places)) == [False] * 3 + [True]


class Clock:
    """Takes the place of `time`, and of what waits: it passes when it is told to."""

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
    assert began == f"s3://{BUCKET} at {proxy.url} does not answer (503 SlowDown); trying again"
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


# What does not pass.


def refused_once(place, proxy):
    """A read fails, and was asked for once alone."""
    proxy.seen = []
    error = fails(place.read, "x")
    assert len(proxy.seen) == 1
    assert not place.traffic.faults
    return error


def test_a_wrong_secret(s3, proxy, own_client, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, PermissionError)
    assert error.strerror == "wrong credentials (SignatureDoesNotMatch): check AWS_ACCESS_KEY_ID and its secret"


def test_an_unknown_key(s3, proxy, own_client, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    assert "wrong credentials (InvalidAccessKeyId)" in refused_once(open_storage(s3), proxy).strerror


@pytest.fixture
def nobody(own_client, monkeypatch, tmp_path):
    """No credentials in environment, files or machine."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_no_credentials(s3, proxy, nobody, monkeypatch):
    place = open_storage(s3)
    assert "no credentials: set AWS_ACCESS_KEY_ID" in fails(place.read, "x").strerror
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "HALF")
    monkeypatch.setattr(s3_client, "_filesystems", {})
    assert "no credentials: set AWS_ACCESS_KEY_ID" in fails(place.read, "x").strerror
    assert not proxy.seen


def test_a_profile_that_is_not_there(s3, proxy, nobody, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert "(The config profile (elsewhere) could not be found)" in fails(open_storage(s3).read, "x").strerror


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_is_off(s3, proxy, monkeypatch, minutes):
    """Ours; the server is real, and refuses."""
    import botocore.auth
    import botocore.compat

    def now(remove_tzinfo=True):
        there = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
        return there.replace(tzinfo=None) if remove_tzinfo else there

    monkeypatch.setattr(botocore.auth, "get_current_datetime", now)
    monkeypatch.setattr(s3_faults, "time", lambda: time.time() + 60 * minutes)
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, PermissionError)
    assert error.strerror == "this machine's clock is 20 min from the server's: set it right"


def test_a_bucket_that_is_not_there(s3, proxy):
    place = open_storage("s3://nowhere/runs")
    error = refused_once(place, proxy)
    assert not isinstance(error, FileNotFoundError)
    assert (error.filename, error.strerror) == ("s3://nowhere/runs/x", "there is no bucket 'nowhere'")
    for action in (place.list, lambda: place.write("x", b""), lambda: place.create("x", b""), place.objects):
        assert "no bucket" in fails(action).strerror
    with pytest.raises(UserError, match=r"run\.storage: cannot write to s3://nowhere/runs \(there is no bucket"):
        check_rights(place, "run.storage")


def test_an_object_that_is_not_there(s3, proxy):
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, FileNotFoundError)
    assert (error.filename, error.strerror) == (f"{s3}/x", "no such object")


@pytest.mark.parametrize("bucket", ["no_Bucket!", "a"])
def test_no_bucket_could_have_this_name(bucket):
    assert fails(open_storage(f"s3://{bucket}/runs", patience_seconds=0.5).read, "x").errno


@pytest.mark.parametrize("url", ["localhost:9000", "http://"])
def test_an_endpoint_that_is_no_url(s3, own_client, monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert "AWS" in fails(open_storage(s3, patience_seconds=0.5).read, "x").strerror


RIGHTS = {"write to": "PutObject", "read from": "GetObject", "list": "ListBucket", "delete in": "DeleteObject"}


def policy_without(missing):
    """Of a user who may do all that ganrun asks but this."""
    actions = [f"s3:{action}" for right, action in RIGHTS.items() if right not in missing]
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resources}]}


@pytest.mark.parametrize("missing", [*([right] for right in RIGHTS), ["write to", "delete in"], []], ids=str)
def test_each_right_that_is_missing_is_named(s3, s3_server, own_client, monkeypatch, missing):
    for name, value in s3_server.user(policy_without(missing)).items():
        monkeypatch.setenv(name, value)
    place = open_storage(s3)
    if missing == ["list"]:
        missing = ["list", "delete in"]  # What is deleted with all below it is listed first.
    if missing:
        with pytest.raises(UserError) as caught:
            check_rights(place, "run.storage")
        assert str(caught.value).startswith(f"run.storage: cannot {', '.join(missing)} {s3} (not allowed (AccessDenied")
    else:
        check_rights(place, "run.storage")
    assert not place.traffic.faults


# Large, many, odd.


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART", 5 * 2**20)  # S3 takes none that is smaller.


def test_a_large_object_goes_in_parts(s3, proxy, small_parts):
    place, data = open_storage(s3), os.urandom(11 * 2**20)
    proxy.faults = [Fault(500, "PUT .*partNumber=2"), Fault("reset", "PUT .*partNumber=3")]
    place.write("x", data)
    assert place.read("x") == data
    assert place.traffic.bytes_written == len(data)
    sent = [re.search(r"partNumber=(\d)", request)[1] for request in proxy.seen if "partNumber" in request]
    assert sorted(sent) == ["1", "2", "2", "3", "3"]  # Only the parts that failed went twice.


@pytest.mark.parametrize("request_lost", ["POST .*uploads", "POST .*uploadId"])
def test_a_large_object_whose_answers_are_lost(s3, proxy, small_parts, request_lost):
    place, data = open_storage(s3), os.urandom(10 * 2**20)
    proxy.faults = [Fault("lost", request_lost)]
    place.write("x", data)
    assert place.read("x") == data
    assert list(place.objects()) == ["x"]


def uploads_of(s3_server):
    found = s3_server.client().list_multipart_uploads(Bucket=BUCKET)
    return [upload["Key"] for upload in found.get("Uploads", ())]


def test_a_large_object_that_fails_leaves_nothing(s3, s3_server, proxy, small_parts):
    place = open_storage(s3)
    proxy.faults = [Fault(403, "partNumber=2")]
    assert fails(place.write, "x", bytes(11 * 2**20)).filename == f"{s3}/x"
    assert not place.objects()
    assert f"{place._prefix}/x" not in uploads_of(s3_server)


def test_more_than_a_page_of_objects(s3):
    place = open_storage(s3)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: place.write(f"a/{number:04d}", b""), range(1_003)))
    place.write("b", b"")
    assert place.list("a") == [f"{number:04d}" for number in range(1_003)]
    assert len(place.objects()) == 1_004
    place.delete("a")
    assert list(place.objects()) == ["b"]


NAMES = ["a b", "a+b", "a%20b", "ü/ß.png", "日本", "a&b=c?d#e", "x'\"<>"]


def test_odd_names(s3):
    odd = f"{s3}/pre fix+%41ü"
    place = open_storage(odd)
    for name in NAMES:
        place.write(name, name.encode())
    assert {name: place.read(name).decode() for name in NAMES} == {name: name for name in NAMES}
    assert sorted(place.objects()) == sorted(NAMES)
    assert place.list() == sorted({name.partition("/")[0] for name in NAMES})
    assert open_storage(s3).list() == ["pre fix+%41ü"]
    for name in NAMES[:-1]:
        place.delete(name)
    assert list(place.objects()) == NAMES[-1:]
    place.delete("")
    assert not open_storage(s3).objects()


def test_empty_objects(s3):
    place = open_storage(s3)
    place.write("x", b"")
    assert place.read("x") == b""
    assert place.objects()["x"].bytes == 0
    version = place.read_version("x")[1]
    assert place.replace("x", b"", version)
    assert not place.create("x", b"")


def test_a_bucket_alone(s3):
    for uri in (f"s3://{BUCKET}", f"s3://{BUCKET}/"):
        place, below = open_storage(uri), s3.rpartition("/")[2]
        place.write(f"{below}/x", b"1")
        assert below in place.list()
        assert place.list(below) == ["x"]
        assert f"{below}/x" in place.objects()
        place.delete(below)
        assert below not in place.list()
        before = time.time()
        assert before - 2 < place.now() < time.time() + 2  # It knows whole seconds.


def test_slashes_that_are_too_many_mean_nothing(s3):
    """As in a path: `run.storage` may end with one."""
    place = open_storage(f"{s3}//runs///a/")
    assert place.uri == f"{s3}/runs/a"
    place.write("x", b"1")
    assert open_storage(f"{s3}/runs").read("a/x") == b"1"


def test_deletion_keeps_to_the_name(s3):
    place = open_storage(f"{s3}/a")
    for name in ("x", "x1", "x/y", "x/y/z", "X"):
        place.write(name, b"")
    open_storage(s3).write("ab", b"")
    place.delete("x")
    assert sorted(place.objects()) == ["X", "x1"]
    place.delete("")
    assert list(open_storage(s3).objects()) == ["ab"]


def test_an_append_that_failed_added_nothing(s3, proxy):
    place = open_storage(s3, patience_seconds=0.1)
    place.append("log", b"1\n")
    proxy.faults = [Fault(403, "PUT")]
    fails(place.append, "log", b"2\n")
    place.append("log", b"3\n")
    assert open_storage(s3).read("log") == b"1\n3\n"


def test_globs(s3):
    for name in ("a1/x.tar", "a1/y.tar", "a2/x.tar", "b/x.tar", "a1/.hidden.tar"):
        open_storage(s3).write(name, b"")
    assert matching(f"{s3}/a1/*.tar") == [f"{s3}/a1/x.tar", f"{s3}/a1/y.tar"]
    assert matching(f"{s3}/a?/x.tar") == [f"{s3}/a1/x.tar", f"{s3}/a2/x.tar"]
    assert matching(f"{s3}/[ab]*/[x]*") == [f"{s3}/{place}/x.tar" for place in ("a1", "a2", "b")]
    assert matching(f"{s3}/none*") == []


# Secrets, threads, processes.


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
    """More than there are connections, and a fault now and then."""
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
    """And in the loop's thread too: what was interrupted is not done later."""
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
