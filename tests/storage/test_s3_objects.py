"""Objects of S3 that are large, many or oddly named."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganrun.storage import matching, open_storage
from tests.s3 import BUCKET
from tests.storage.making import fails
from tests.storage.proxy import Fault

pytestmark = pytest.mark.usefixtures("client_of_the_server")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("ganrun.storage.s3.PART", 5 * 2**20)  # S3 takes none that is smaller.


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
    """Repeated and trailing slashes are ignored, as in a path."""
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
