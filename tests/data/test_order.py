"""The order of samples: pure functions of (seed, epoch, slot, position)."""

import hashlib
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ganrun.data.order import Order, Segment
from ganrun.errors import UserError
from ganrun.slots import Slots

SIZES = (30, 25, 35, 20, 31)
"""141 samples: 6 slots show 138 of them in an epoch, and leave 3 over."""
ORDER = Order(SIZES, slots=6, seed=1, window=2)


def walk(order, slot, position, count):
    """`count` samples of a slot from a position on, as (shard, number)."""
    shown = []
    while len(shown) < count:
        first, places = order.window_at(slot, position + len(shown))
        shown += [tuple(place) for place in places[position + len(shown) - first :].tolist()]
    return shown[:count]


def epoch(order, number):
    """All that an epoch shows."""
    length = order.lane_length
    return [place for slot in range(order.slots) for place in walk(order, slot, number * length, length)]


def turns(order, workers, images, count, slot_batch=2):
    """The batch of each of `count` turns from `images` on, slot by slot, as `workers` workers read it."""
    shown = {
        slot: walk(order, slot, images // order.slots, count * slot_batch)
        for rank in range(workers)
        for slot in Slots(order.slots, rank, workers).owned
    }
    return [
        [shown[slot][turn * slot_batch : (turn + 1) * slot_batch] for slot in range(order.slots)]
        for turn in range(count)
    ]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_do_not_enter_the_order(workers):
    assert turns(ORDER, workers, images=0, count=30) == turns(ORDER, 1, images=0, count=30)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("after", [1, 5, 11, 12, 20])
def test_workers_may_change_in_mid_epoch(workers, after):
    """12 images a turn, 138 an epoch: the change falls into an epoch, and into a batch that runs across two."""
    parts = turns(ORDER, 2, 0, after) + turns(ORDER, workers, 12 * after, 30 - after)
    assert parts == turns(ORDER, 1, 0, 30)


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 6, 7, 141])
@pytest.mark.parametrize("sizes", [SIZES, (141,), (1,) * 141, (1, 139, 0, 1)])
def test_each_epoch_shows_each_sample_once_except_fewer_than_slots_left_over(sizes, slots):
    order = Order(sizes, slots, seed=3, window=2)
    everything = {(shard, number) for shard, size in enumerate(sizes) for number in range(size)}
    for number in range(3):
        shown = epoch(order, number)
        assert len(set(shown)) == len(shown) == 141 - order.left_over
        assert set(shown) <= everything
        assert order.left_over == 141 % slots < slots


@pytest.mark.parametrize("sizes", [SIZES, (141,)])
def test_the_left_over_ones_differ_from_epoch_to_epoch(sizes):
    order = Order(sizes, slots=6, seed=1, window=2)
    everything = {(shard, number) for shard, size in enumerate(sizes) for number in range(size)}
    left = [frozenset(everything - set(epoch(order, number))) for number in range(20)]
    assert {len(samples) for samples in left} == {3}
    assert len(set(left)) > 10


@pytest.mark.parametrize("sizes", [SIZES, (141,)])
def test_no_sample_is_left_out_for_ever(sizes):
    order = Order(sizes, slots=6, seed=1, window=2)
    assert len({place for number in range(3) for place in epoch(order, number)}) == 141


def test_lanes_are_equal():
    lanes = [ORDER.lane(epoch, slot) for epoch in range(4) for slot in range(6)]
    assert {sum(segment.stop - segment.start for segment in lane) for lane in lanes} == {141 // 6}


def test_a_lane_is_a_run_of_few_shards():
    """So a node fetches only its lanes: 6 cuts and one wrap over 5 shards make at most 12 segments."""
    for number in range(10):
        lanes = [ORDER.lane(number, slot) for slot in range(6)]
        assert sum(map(len, lanes)) <= len(SIZES) + 1 + 6


def test_a_window_holds_no_more_shards_than_asked_for_and_only_its_lane():
    order = Order((5,) * 20, slots=2, seed=0, window=3)
    for slot in range(2):
        lane = {segment.shard for segment in order.lane(0, slot)}
        for position in range(0, 50, 5):
            _, places = order.window_at(slot, position)
            shards = set(places[:, 0].tolist())
            assert len(shards) <= 3
            assert shards <= lane


def test_batches_run_on_across_epochs():
    """A slot's lane has 23 samples, no multiple of 2: its 12th batch ends one epoch and begins the next."""
    length = ORDER.lane_length
    shown = walk(ORDER, 0, 0, 3 * length)
    assert turns(ORDER, 1, images=0, count=12)[11][0] == shown[22:24]
    assert shown[23] in set(walk(ORDER, 0, length, length))


def test_any_position_can_be_begun_at():
    whole = walk(ORDER, 4, 0, 100)
    assert all(walk(ORDER, 4, position, 100 - position) == whole[position:] for position in range(100))


def test_samples_are_shuffled():
    order = Order((200,), slots=1, seed=0, window=1)
    numbers = [number for _, number in epoch(order, 0)]
    assert numbers != sorted(numbers)
    neighbours = Counter(after - before for before, after in pairwise(numbers))
    assert neighbours[1] < 10


def test_epochs_and_slots_and_seeds_are_shuffled_differently():
    assert epoch(ORDER, 0) != epoch(ORDER, 1)
    assert epoch(ORDER, 0) != epoch(Order(SIZES, 6, seed=2, window=2), 0)
    single = Order((100,), slots=2, seed=0, window=1)
    first, second = ([number % 50 for _, number in walk(single, slot, 0, 50)] for slot in range(2))
    assert first != second


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    order = Order((3, 2, 4), slots=2, seed=7, window=2)
    assert walk(order, 0, 0, 8) == [(0, 1), (1, 0), (0, 0), (1, 1), (0, 1), (0, 0), (0, 2), (1, 0)]
    assert order.lane(1, 1) == [Segment(1, 1, 2), Segment(2, 0, 3)]


UNEQUAL = tuple(np.random.default_rng(0).integers(0, 40, 300).tolist())


@pytest.mark.parametrize(
    ("order", "digest"),
    [
        (ORDER, "09d9b87e4fd8c2d5"),
        (Order((141,), 7, 3, 1), "4f7f34c55c95617c"),
        (Order((1, 139, 0, 1), 4, 3, 2), "d0b2f615a5a585a9"),
        (Order(UNEQUAL, 16, 5, 4), "cdf88f6e0941aa83"),
        (Order(UNEQUAL, 1, 5, 3), "7080f1592941ea3e"),
        (Order((1,) * 50, 7, 2, 2), "112eac8b39e8ebd7"),
    ],
)
def test_runs_that_have_begun_go_on_in_the_same_order(order, digest):
    """Of three epochs, every place of every slot, as the first ganrun showed them."""
    shown = hashlib.sha256()
    for slot in range(order.slots):
        position = 0
        while position < 3 * order.lane_length:
            first, places = order.window_at(slot, position)
            assert first == position
            shown.update(places.astype("<i8").tobytes())
            position += len(places)
    assert shown.hexdigest()[:16] == digest


def lines_run(call):
    """How many lines of order.py a call runs through."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.endswith("order.py"):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("slots", [1, 8, 1024])
def test_a_window_costs_the_same_however_many_shards_there_are(slots):
    """Also where a run begins or goes on in the middle of an epoch that nobody has laid out yet."""
    costs = set()
    for shards in (5 * 1024, 50 * 1024):
        order = Order((7,) * shards, slots, seed=0, window=4)
        middle = order.lane_length // 2
        costs |= {lines_run(lambda o=order, m=middle: o.window_at(slots - 1, m)) for _ in range(2)}
    assert max(costs) <= 100


def test_the_memory_of_an_order_is_a_few_bytes_a_shard_and_none_a_sample():
    order = Order((10_000,) * 100_000, slots=1024, seed=0, window=4)  # A thousand million samples.
    tracemalloc.start()
    try:
        for epoch in range(20):
            order.window_at(0, epoch * order.lane_length)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < (1 + 4) * 24 * 100_000  # Sizes, and four epochs.


def test_an_empty_shard_is_passed_over():
    order = Order((3, 0, 4), slots=1, seed=0, window=2)
    assert {segment.shard for number in range(5) for segment in order.lane(number, 0)} == {0, 2}


def test_more_slots_than_samples_are_refused():
    with pytest.raises(UserError, match=r"data\.slots: 8 is more than the 7 samples"):
        Order((3, 4), 8, 0, 1)
