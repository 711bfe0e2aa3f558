"""Many ranks played through: the same requests as their readers make, equal lanes, and each sample once."""

import itertools
import os
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from ganrun.benchmarks.simulated_reads import Cache, play_epoch
from ganrun.data.cache import ShardCache
from ganrun.data.order import Order
from ganrun.data.stream import SlotReader

SIZES = tuple(np.random.default_rng(0).integers(20, 100, 2_000).tolist())
BYTES = [10 * size for size in SIZES]


def state(order, limit, node_slots=8, epochs=1):
    caches = [Cache(limit) for _ in range(-(-order.slots // node_slots))]
    return [play_epoch(order, BYTES[: len(order.sizes)], node_slots, caches, epoch) for epoch in range(epochs)][-1]


@pytest.mark.parametrize("slots", [1, 100, 256, 1024])
def test_lanes_are_equal_and_show_each_sample_once(slots):
    order = Order(SIZES, slots, seed=3, window=4)
    for epoch in (0, 7):
        reads = play_epoch(order, BYTES, 8, [Cache(0)] * -(-slots // 8), epoch)
        assert reads.lanes == {order.lane_length}
        assert reads.again == 0
        assert sum(SIZES) - reads.shown == order.left_over < slots


def test_two_who_show_the_same_are_found():
    class Twice(Order):
        def window_at(self, slot, position):
            return super().window_at(min(slot, 6), position)

    assert state(Twice(SIZES, 8, seed=3, window=4), 0).again == sum(SIZES) // 8


def test_what_is_asked_for_is_what_readers_ask_for():
    order, asked = Order(SIZES[:50], 4, seed=1, window=3), []
    shard = Future()
    shard.set_result(SimpleNamespace(samples=[("key", {})] * 100))

    def request(number):
        asked.append(number)
        return shard

    for slot in range(4):
        reader, (last, _) = SlotReader(slot, 0, order, request), order.window_at(slot, order.lane_length - 1)
        assert last > 0
        while reader.position <= last:  # What it asks for then is the next epoch's.
            reader.take(1)
    reads = state(order, 0, node_slots=4)
    assert reads.wanted == reads.fetched == (len(asked),)
    assert reads.fetched_bytes == (sum(BYTES[number] for number in asked),)


def test_a_node_fetches_its_lanes_and_little_more():
    """2,000 shards in 256 lanes: 62.5 a node. Each of its 8 lanes begins and ends within a shard, so without a cache
    some are fetched twice."""
    order = Order(SIZES, 256, seed=3, window=4)
    alone, shared = state(order, 0), state(order, sum(BYTES))
    assert max(alone.fetched) <= 62.5 * 1.2 + 8 + 1
    assert max(shared.fetched) <= max(alone.fetched) - 6
    assert sum(shared.fetched) < 2_000 + 32 + 2


def test_a_cache_that_holds_all_spares_later_epochs_and_a_small_one_does_not():
    order = Order(SIZES, 256, seed=3, window=4)
    first, second = state(order, sum(BYTES)), state(order, sum(BYTES), epochs=2)
    assert sum(second.fetched) < sum(first.fetched)
    assert sum(state(order, sum(BYTES) // 100, epochs=2).fetched) > 0.9 * sum(first.fetched)


def test_the_cache_lets_go_as_the_real_one_does(tmp_path, monkeypatch):
    clock, utime = itertools.count(1), os.utime
    monkeypatch.setattr(os, "utime", lambda path: utime(path, (next(clock),) * 2))
    real, model = ShardCache(tmp_path, 1_000), Cache(1_000)
    for shard in np.random.default_rng(0).integers(0, 12, 300).tolist():
        size, name = 100 + 37 * shard, f"{shard:02d}"
        there = real.get(name) is not None
        if not there:
            real.put(name, b"x" * size)
            os.utime(tmp_path / name)
        assert model.has(shard, size) == there
