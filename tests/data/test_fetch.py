"""Whole shards, fetched ahead: each once, only one's own, bounded; and what went wrong is counted or named."""

import errno
import gc
import hashlib
import io
import os
import tarfile
import threading
import tracemalloc
import weakref
from collections import Counter
from dataclasses import replace

import pytest

from ganrun.data.cache import ShardCache
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet, Index, Shard, open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import RunError, UserError
from ganrun.slots import Slots
from ganrun.storage import Folder, open_storage
from ganrun.storage.retry import Traffic
from ganrun.storage.s3 import S3
from tests.conftest import SIZES, write_data
from tests.data.test_stream import IMAGE, config_of, encoded
from tests.waiting import WAIT, until


class Wire(Folder):
    """A folder as if behind a wire: counts what is read, may wait or fail, and may hand out damaged bytes."""

    def __init__(self, path):
        super().__init__(path)
        self.traffic = Traffic()
        self.reads = []
        self.free, self.began = threading.Event(), threading.Semaphore(0)
        self.free.set()
        self.damage = {}
        """How often the next reads of a shard come damaged."""
        self.fault = None

    def read(self, name, limit=None):
        self.reads.append(name)
        self.began.release()
        self.free.wait()
        if self.fault:
            raise self.fault
        data = super().read(name)
        if self.damage.get(name, 0) > 0:
            self.damage[name] -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


@pytest.fixture
def wired(data_folder):
    """The small data set behind a wire; and the wire."""
    return behind_wire(data_folder)


def behind_wire(folder):
    wire = Wire(folder)
    index = open_data(str(folder)).index
    return DataSet(index, (wire,) * len(index.shards)), wire


@pytest.fixture
def fetcher_of(request):
    def make(data, cache=None):
        fetcher = Fetcher(data, cache)
        request.addfinalizer(fetcher.close)
        return fetcher

    return make


def name(shard):
    return f"{shard:06d}.tar"


def bytes_of(data, shards):
    return sum(data.index.shards[shard].bytes for shard in shards)


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
    wire.damage = {name(shard): 1 for shard in range(0, 60, 2)}
    fetcher = fetcher_of(data)
    for future in [fetcher.request(shard) for shard in range(60)]:
        future.result(WAIT)
    assert fetcher.bytes_fetched == bytes_of(data, range(60))
    assert fetcher.damaged == 30


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


# Ahead, and only one's own.


@pytest.fixture
def stream_of(request):
    def make(data, slots=1, owned=None, batch=2, images=0, window=2, cache=None):
        order = Order(tuple(shard.samples for shard in data.index.shards), slots, 1, window)
        owned = range(slots) if owned is None else owned
        stream = Stream(data, config_of(batch * slots, IMAGE), order, owned, images, cache=cache)
        request.addfinalizer(stream.close)
        return stream

    return make


def windows(order, slot, begin, end):
    """The sets of shards of a slot's windows that hold its samples from `begin` to `end`, and of the one after."""
    found, position = [], begin
    while position < end:
        first, places = order.window_at(slot, position)
        found.append(set(places[:, 0].tolist()))
        position = first + len(places)
    return [*found, set(order.window_at(slot, position)[1][:, 0].tolist())]


def test_the_window_after_is_fetched_before_the_first_sample_is_taken(wired, stream_of):
    data, wire = wired
    wire.free.clear()
    stream_of(data)
    for _ in range(4):
        assert wire.began.acquire(timeout=WAIT)
    first, second = windows(Order(SIZES, 1, 1, 2), 0, 0, 1)
    assert set(wire.reads) == {name(shard) for shard in first | second}
    assert len(wire.reads) == 4
    wire.free.set()


def test_first_windows_of_all_slots_come_before_second_ones(tmp_path, stream_of):
    data, wire = behind_wire(write_data(tmp_path / "data", sizes=(8,) * 24))
    wire.free.clear()
    stream_of(data, slots=3, batch=8, window=2)
    order = Order((8,) * 24, 3, 1, 2)
    first = set().union(*(windows(order, slot, 0, 1)[0] for slot in range(3)))
    for _ in range(4):
        assert wire.began.acquire(timeout=WAIT)
    assert set(wire.reads) <= {name(shard) for shard in first}
    wire.free.set()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_fetches_the_shards_of_its_lanes_and_no_others(tmp_path, stream_of, workers):
    """6 slots of 24 samples in 18 shards of 8: an epoch is 12 turns of 2; and what is ahead of its end."""
    sizes, slots, batch = (8,) * 18, 6, 2
    folder = write_data(tmp_path / "data", sizes=sizes)
    order, most = Order(sizes, slots, 1, 2), 0
    for rank in range(workers):
        data, wire = behind_wire(folder)
        owned = Slots(slots, rank, workers).owned
        stream = stream_of(data, slots, owned, batch)
        for _ in range(order.lane_length // batch):
            stream.next()
        stream.close()
        taken = [slot.position for slot in stream._slots]
        touched = [windows(order, slot, 0, end) for slot, end in zip(owned, taken, strict=True)]
        allowed = {name(shard) for lane in touched for window in lane for shard in window}
        needed = {name(segment.shard) for slot in owned for segment in order.lane(0, slot)}
        assert needed <= set(wire.reads) <= allowed
        # A window's shards once for it; a shard that two windows share perhaps for both.
        budget = Counter(name(shard) for lane in touched for window in lane for shard in window)
        assert Counter(wire.reads) <= budget
        assert stream.fetcher.bytes_fetched == sum(os.path.getsize(folder / read) for read in wire.reads)
        most = max(most, len(needed))
    assert most <= 18 // workers + 2  # Lanes begin and end within shards.


def test_ranks_with_a_cache_fetch_a_shard_once_for_all_of_them(tmp_path, stream_of):
    folder, reads = write_data(tmp_path / "data", sizes=(8,) * 6), []
    for rank in range(3):
        data, wire = behind_wire(folder)
        stream = stream_of(data, 6, Slots(6, rank, 3).owned, cache=ShardCache(tmp_path / "cache", 10**8))
        for _ in range(20):
            stream.next()
        stream.close()
        reads += wire.reads
        assert stream.fetcher.bytes_fetched == sum(os.path.getsize(folder / read) for read in wire.reads)
    assert Counter(reads) == Counter(map(name, range(6)))


def test_memory_does_not_depend_on_the_size_of_the_data_set(tmp_path, stream_of, monkeypatch):
    """The most shards alive at once, whole or coming, while a data set of 8 and one of 64 shards are streamed."""
    slots, window, peaks = 2, 2, []
    for shards in (8, 64):
        monkeypatch.undo()
        data, wire = behind_wire(write_data(tmp_path / str(shards), sizes=(8,) * shards))
        count = Live(monkeypatch)
        stream = stream_of(data, slots, window=window, batch=2)
        for _ in range(shards * 8 // (slots * 2) * 2):  # Two epochs.
            stream.next()
        stream.close()
        assert len(set(wire.reads)) == shards
        peaks.append(count.most)
    assert all(slots * window < peak <= (2 * slots + 1) * window for peak in peaks), peaks


def test_the_bytes_held_are_what_the_formula_says(tmp_path, stream_of):
    """As Python's allocator counts them, of data sets of 4 and of 16 MiB; the batches here are small."""
    slots, window, peaks = 2, 2, []
    for shards in (16, 64):
        data = heavy_data(tmp_path / str(shards), shards)
        largest = max(shard.bytes for shard in data.index.shards)
        tracemalloc.start()
        stream = stream_of(data, slots, window=window, batch=2)
        for _ in range(shards * 8 // (slots * 2) * 2):
            stream.next()
        stream.close()
        peaks.append(tracemalloc.get_traced_memory()[1] / largest)
        tracemalloc.stop()
    bound = (2 * slots + 1) * window + 4  # Four are being fetched.
    assert all(slots * window < peak < bound for peak in peaks), peaks


def heavy_data(folder, shards):
    """Shards of 256 KiB, most of it in members that nobody reads; behind a wire."""
    folder.mkdir()
    listed = []
    for number in range(shards):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in range(8):
                for extension, content in (("png", encoded()), ("bin", bytes([number]) * 32_000)):
                    member = tarfile.TarInfo(f"{number:03d}-{sample}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        content = file.getvalue()
        (folder / name(number)).write_bytes(content)
        listed.append(Shard(name(number), 8, len(content), hashlib.sha256(content).hexdigest()))
    (folder / "index.json").write_bytes(Index(16, 1, (), tuple(listed)).to_json())
    return behind_wire(folder)[0]


class Live:
    """Counts open shards from the moment that their bytes are read until the last who holds them lets go."""

    def __init__(self, monkeypatch):
        self.now = self.most = 0
        self.lock = threading.Lock()
        whole, opened = Fetcher._whole, Fetcher._open
        monkeypatch.setattr(Fetcher, "_whole", lambda fetcher, number: self.add(1) or whole(fetcher, number))
        monkeypatch.setattr(Fetcher, "_open", lambda fetcher, number: self.watch(opened(fetcher, number)))

    def watch(self, shard):
        weakref.finalize(shard, self.add, -1)
        return shard

    def add(self, change):
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)


# What goes wrong.


def test_what_comes_damaged_once_is_fetched_again_and_counted(wired, fetcher_of):
    data, wire = wired
    wire.damage = {name(1): 1}
    fetcher = fetcher_of(data)
    assert len(fetcher.request(1).result(WAIT).samples) == SIZES[1]
    assert wire.reads == [name(1), name(1)]
    assert fetcher.faults == Counter(damaged=1)


def test_what_stays_damaged_is_named(wired, fetcher_of):
    data, wire = wired
    wire.damage = {name(1): 9}
    fetcher = fetcher_of(data)
    with pytest.raises(UserError, match=r"000001\.tar: sha256 .* the shard is damaged or was replaced: restore it, or"):
        fetcher.request(1).result(WAIT)
    assert len(wire.reads) == 2
    assert fetcher.bytes_fetched == 0


def test_a_folder_of_this_machine_is_read_once(data_folder, fetcher_of):
    data, wire = behind_wire(data_folder)
    wire.traffic, wire.damage = None, {name(1): 9}
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


# The cache.


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", 10**8)


def test_what_is_cached_is_not_fetched(wired, fetcher_of, cache):
    data, wire = wired
    fetcher_of(data, cache).request(0).result(WAIT)
    again = fetcher_of(data, cache)
    assert len(again.request(0).result(WAIT).samples) == SIZES[0]
    assert wire.reads == [name(0)]
    assert again.bytes_fetched == 0


def test_what_is_damaged_in_the_cache_is_fetched_again_and_mended_there(wired, fetcher_of, cache):
    data, wire = wired
    fetcher_of(data, cache).request(0).result(WAIT)
    path = cache.folder / data.index.shards[0].sha256
    whole = path.read_bytes()
    for bad in (whole[:-1], b"", b"x" * len(whole)):
        path.write_bytes(bad)
        assert len(fetcher_of(data, cache).request(0).result(WAIT).samples) == SIZES[0]
        assert path.read_bytes() == whole
    assert wire.reads == [name(0)] * 4


def test_what_is_damaged_in_storage_never_comes_into_the_cache(wired, fetcher_of, cache):
    data, wire = wired
    wire.damage = {name(0): 9}
    with pytest.raises(UserError):
        fetcher_of(data, cache).request(0).result(WAIT)
    assert cache.get(data.index.shards[0].sha256) is None


def test_files_of_this_machine_are_not_copied_into_the_cache(data_folder, fetcher_of, cache):
    fetcher_of(open_data(str(data_folder)), cache).request(0).result(WAIT)
    assert not cache.folder.exists()


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


def test_a_shard_damaged_in_its_bucket_is_named_and_one_that_was_mended_meanwhile_is_read(s3, data_folder, fetcher_of):
    class Mended(S3):
        """Puts the whole shard back after its first read."""

        def read(self, name, limit=None):
            found = super().read(name)
            if mends:
                self.write(name, whole)
            return found

    whole, mends = (data_folder / name(0)).read_bytes(), False
    place = Mended(s3)
    place.write(name(0), whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    data = DataSet(open_data(str(data_folder)).index, (place,) * len(SIZES))
    fetcher = fetcher_of(data)
    with pytest.raises(UserError, match=r"s3://.*/000000\.tar: sha256 .* restore it, or index the data set again"):
        fetcher.request(0).result(WAIT)
    mends = True
    assert len(fetcher.request(0).result(WAIT).samples) == SIZES[0]
    assert fetcher.faults == Counter(damaged=2)
    assert fetcher.bytes_fetched == len(whole)
