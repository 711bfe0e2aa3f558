"""A worker fetches ahead, only the shards of its lanes, and holds a bounded number of them."""

import hashlib
import io
import os
import tarfile
import threading
import tracemalloc
import weakref
from collections import Counter

import pytest

from ganrun.data.cache import ShardCache
from ganrun.data.fetch import Fetcher
from ganrun.data.index import Index, Shard
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.slots import Slots
from tests.conftest import SIZES, write_data
from tests.data.test_stream import IMAGE, config_of, encoded
from tests.data.wire import behind_wire, name
from tests.waiting import WAIT


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
