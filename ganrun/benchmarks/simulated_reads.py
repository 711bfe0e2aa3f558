"""Simulation of order, lanes and cache of many ranks, without data: the shards that their nodes request from storage.

A rank owns one slot. Its reader requests shards like `SlotReader`: the first two windows at the start, and the window
after next whenever it enters a window. The cache is that of `data/cache.py`: least recently used first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganrun.data.order import Order


class Reads(NamedTuple):
    """Reads of the nodes of a run in an epoch."""

    shown: int
    """Samples shown, with repetitions."""
    again: int
    """Samples shown before in this epoch; must be 0."""
    lanes: frozenset[int]
    """Distinct lengths of the lanes; one if all are equal."""
    wanted: tuple[int, ...]
    """Shards requested by the ranks of each node."""
    fetched: tuple[int, ...]
    """Requested shards that were not in the node's cache."""
    fetched_bytes: tuple[int, ...]


def play_epoch(
    order: Order, shard_bytes: Sequence[int], node_slots: int, caches: "Sequence[Cache]", epoch: int = 0
) -> Reads:
    """Simulate every window of all slots in an epoch.

    Args:
        order: order of the data set.
        shard_bytes: size of each shard.
        node_slots: slots, and so ranks, on a node; the last node may have fewer.
        caches: one per node, as the previous epoch left them.
        epoch: number of the epoch.
    """
    offsets = np.concatenate([[0], np.cumsum(order.sizes)])
    seen = np.zeros(int(offsets[-1]), bool)
    shown, lanes, wanted, fetched, sizes = 0, set[int](), list[int](), list[int](), list[int]()
    for node, cache in enumerate(caches):
        asked = []
        for slot in range(node * node_slots, min((node + 1) * node_slots, order.slots)):
            windows = list(_windows(order, slot, epoch))
            lanes.add(sum(len(places) for _, places in windows))
            for _, places in windows:
                seen[offsets[places[:, 0]] + places[:, 1]] = True
            shown += sum(len(places) for _, places in windows)
            asked += _requests(slot, windows)
        missed = [shard for _, _, shard in sorted(asked) if not cache.has(shard, shard_bytes[shard])]
        wanted.append(len(asked))
        fetched.append(len(missed))
        sizes.append(sum(shard_bytes[shard] for shard in missed))
    return Reads(
        shown, shown - int(np.count_nonzero(seen)), frozenset(lanes), tuple(wanted), tuple(fetched), tuple(sizes)
    )


class Cache:
    """LRU cache of a node, by shard sizes alone, with a limit in bytes; 0: no cache."""

    def __init__(self, limit: int) -> None:
        self.limit, self._held = limit, 0
        self._sizes = OrderedDict[int, int]()

    def has(self, shard: int, size: int) -> bool:
        """Return True if the shard is cached, and cache it."""
        if shard in self._sizes:
            self._sizes.move_to_end(shard)
            return True
        if size <= self.limit:
            self._sizes[shard], self._held = size, self._held + size
            while self._held > self.limit:
                self._held -= self._sizes.popitem(last=False)[1]
        return False


def _windows(order: Order, slot: int, epoch: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the position in the epoch and the samples of each window of a lane."""
    position = begin = epoch * order.lane_length
    while position < begin + order.lane_length:
        first, places = order.window_at(slot, position)
        yield first - begin, places
        position = first + len(places)


def _requests(slot: int, windows: list[tuple[int, NDArray[np.int64]]]) -> list[tuple[int, int, int]]:
    """Yield (position, slot, shard) of each request: a window's shards when the reader enters the window before."""
    entered = [0, *(first for first, _ in windows)]
    return [
        (when, slot, int(shard))
        for when, (_, places) in zip(entered, windows, strict=False)
        for shard in np.unique(places[:, 0])
    ]
