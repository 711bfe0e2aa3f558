"""Whole shards are fetched once, by a bounded number of threads; what fails is counted or named."""

import errno
import gc
import hashlib
import threading
import weakref
from collections import Counter
from dataclasses import replace

import pytest

from ganrun.data.index import DataSet, open_data
from ganrun.errors import RunError, UserError
from ganrun.storage import open_storage
from ganrun.storage.s3 import S3
from tests.conftest import SIZES, write_data
from tests.data.wire import Wire, behind_wire, bytes_of, name
from tests.waiting import WAIT, until

# Each once.


def test_all_who_want_a_shard_at_a_time_get_the_same_one(wired, fetcher_of):
    data, wire = wired
    fetcher, got = fetcher_of(data), []
    wire.free.clear()
    threads = [threading.Thread(target=lambda: got.append(fetcher.request(2).result(WAIT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert wire.began.acquire(timeout=WAIT)
    wire.free.set()
    for thread in threads:
        thread.join(WAIT)
    got.append(fetcher.request(2).result(WAIT))
    assert wire.reads == [name(2)]
    assert len(got) == 9
    assert len({id(opened) for opened in got}) == 1
    assert fetcher.bytes_fetched == bytes_of(data, [2])


def test_a_shard_that_nobody_holds_is_let_go_and_fetched_again(wired, fetcher_of):
    data, wire = wired
    fetcher = fetcher_of(data)
    alive = weakref.ref(fetcher.request(0).result(WAIT))
    let_go(alive)
    fetcher.request(0).result(WAIT)
    assert wire.reads == [name(0), name(0)]


def let_go(alive):
    """Returns when it is gone, without the collector; a thread of the pool may take a moment to drop it."""
    gc.disable()
    try:
        until(lambda: alive() is None)
    finally:
        gc.enable()


def test_four_are_fetched_at_once(tmp_path, fetcher_of):
    data, wire = behind_wire(write_data(tmp_path / "data", sizes=(2,) * 12))
    fetcher = fetcher_of(data)
    wire.free.clear()
    futures = [fetcher.request(shard) for shard in range(12)]
    for _ in range(4):
        assert wire.began.acquire(timeout=WAIT)
    fifth = wire.began.acquire(timeout=0.1)
    wire.free.set()
    assert not fifth
    assert [len(future.result(WAIT).samples) for future in futures] == [2] * 12
    assert Counter(wire.reads) == Counter(map(name, range(12)))


def test_counts_hold_whatever_the_threads_do(tmp_path, fetcher_of):
    data, wire = behind_wire(write_data(tmp_path / "data", sizes=(1,) * 60))
    wire.corrupt = {name(shard): 1 for shard in range(0, 60, 2)}
    fetcher = fetcher_of(data)
    for future in [fetcher.request(shard) for shard in range(60)]:
        future.result(WAIT)
    assert fetcher.bytes_fetched == bytes_of(data, range(60))
    assert fetcher.corrupt == 30


def test_close_lets_go_of_what_has_not_begun(tmp_path, fetcher_of):
    data, wire = behind_wire(write_data(tmp_path / "data", sizes=(1,) * 12))
    fetcher = fetcher_of(data)
    wire.free.clear()
    futures = [fetcher.request(shard) for shard in range(12)]
    for _ in range(4):
        assert wire.began.acquire(timeout=WAIT)
    fetcher.close()  # Returns though fetches are under way.
    assert all(future.cancelled() for future in futures[4:])
    wire.free.set()
    assert all(future.result(WAIT) for future in futures[:4])
    assert len(wire.reads) == 4


# What goes wrong.


def test_what_comes_corrupt_once_is_fetched_again_and_counted(wired, fetcher_of):
    data, wire = wired
    wire.corrupt = {name(1): 1}
    fetcher = fetcher_of(data)
    assert len(fetcher.request(1).result(WAIT).samples) == SIZES[1]
    assert wire.reads == [name(1), name(1)]
    assert fetcher.faults == Counter(damaged=1)


def test_what_stays_corrupt_is_named(wired, fetcher_of):
    data, wire = wired
    wire.corrupt = {name(1): 9}
    fetcher = fetcher_of(data)
    with pytest.raises(UserError, match=r"000001\.tar: sha256 .* the shard is corrupt or was replaced: restore it, or"):
        fetcher.request(1).result(WAIT)
    assert len(wire.reads) == 2
    assert fetcher.bytes_fetched == 0


def test_a_folder_of_this_machine_is_read_once(data_folder, fetcher_of):
    data, wire = behind_wire(data_folder)
    wire.traffic, wire.corrupt = None, {name(1): 9}
    with pytest.raises(UserError, match="sha256"):
        fetcher_of(data).request(1).result(WAIT)
    assert wire.reads == [name(1)]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, UserError),
        (errno.EACCES, UserError),
        (errno.EIO, RunError),
        (errno.ENXIO, RunError),
        (errno.ETIMEDOUT, RunError),
    ],
)
def test_a_storage_that_does_not_give_a_shard_is_named(wired, fetcher_of, number, kind):
    data, wire = wired
    wire.fault = OSError(number, "what is wrong", "address")
    with pytest.raises(kind) as caught:
        fetcher_of(data).request(3).result(WAIT)
    assert str(caught.value) == f"{wire.uri}/000003.tar: cannot be read: what is wrong"


def test_after_a_fault_a_shard_may_be_asked_for_again(wired, fetcher_of):
    data, wire = wired
    fetcher = fetcher_of(data)
    wire.fault = OSError(errno.EIO, "away")
    with pytest.raises(RunError):
        fetcher.request(3).result(WAIT)
    wire.fault = None
    assert len(fetcher.request(3).result(WAIT).samples) == SIZES[3]


def test_faults_of_the_way_are_counted_once_a_place(wired, fetcher_of):
    data, wire = wired
    other = Wire(wire.path)
    places = (wire, wire, other, wire, other)
    wire.traffic.faults.update({"500": 2, "timeout": 1})
    other.traffic.faults.update({"500": 3})
    assert fetcher_of(replace(data, places=places)).faults == {"500": 5, "timeout": 1}


# Over a real wire.


def test_shards_come_from_a_bucket(s3, data_folder, fetcher_of, cache):
    storage = open_storage(s3)
    for path in data_folder.iterdir():
        storage.write(path.name, path.read_bytes())
    data = open_data(s3, patience_seconds=5)
    fetcher = fetcher_of(data, cache)
    assert [len(fetcher.request(shard).result(WAIT).samples) for shard in range(5)] == list(SIZES)
    assert fetcher.bytes_fetched == sum(shard.bytes for shard in data.index.shards)
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in cache.folder.glob("[!.]*")} == {
        shard.sha256 for shard in data.index.shards
    }
    other = (data_folder / "000002.tar").read_bytes()
    storage.write("000001.tar", other)
    storage.delete("000003.tar")
    fresh = fetcher_of(data)
    with pytest.raises(UserError, match=r"s3://.*/000001\.tar: \d+ bytes, but the index says .* was replaced"):
        fresh.request(1).result(WAIT)
    with pytest.raises(UserError, match=r"s3://.*/000003\.tar: cannot be read: no such object"):
        fresh.request(3).result(WAIT)
    assert len(fetcher.request(1).result(WAIT).samples) == SIZES[1]  # What is cached is what the index says.


def test_a_shard_corrupt_in_its_bucket_is_named_and_one_that_was_repaired_meanwhile_is_read(
    s3, data_folder, fetcher_of
):
    class Repaired(S3):
        """Puts the whole shard back after its first read."""

        def read(self, name, limit=None):
            found = super().read(name)
            if repairs:
                self.write(name, whole)
            return found

    whole, repairs = (data_folder / name(0)).read_bytes(), False
    place = Repaired(s3)
    place.write(name(0), whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    data = DataSet(open_data(str(data_folder)).index, (place,) * len(SIZES))
    fetcher = fetcher_of(data)
    with pytest.raises(UserError, match=r"s3://.*/000000\.tar: sha256 .* restore it, or index the data set again"):
        fetcher.request(0).result(WAIT)
    repairs = True
    assert len(fetcher.request(0).result(WAIT).samples) == SIZES[0]
    assert fetcher.faults == Counter(damaged=2)
    assert fetcher.bytes_fetched == len(whole)
