"""Order, lanes and cache of many ranks, played through without a byte of data: what their nodes ask of storage.

A rank owns a slot here, as where there are as many workers as slots, and its reader asks for shards as `SlotReader`
does: the first two windows when it begins, and the one after next whenever it enters a window. The cache is that of
`data/cache.py`: what was not used for longest goes first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganrun.data.order import Order


class Reads(NamedTuple):
    """What the nodes of a run read in an epoch."""

    shown: int
    """Samples; one that is shown twice counts twice."""
    again: int
    """How many of them had been shown before in this epoch, which is to be none."""
    lanes: frozenset[int]
    """Lengths of the lanes: one, if they are equal."""
    wanted: tuple[int, ...]
    """Shards that the ranks of each node asked for."""
    fetched: tuple[int, ...]
    """Of those, what was not in the node's cache."""
    fetched_bytes: tuple[int, ...]


def play_epoch(
    order: Order, shard_bytes: Sequence[int], node_slots: int, caches: "Sequence[Cache]", epoch: int = 0
) -> Reads:
    """All slots of an epoch, every window of it.

    Args:
        order: of the data set.
        shard_bytes: size of each shard.
        node_slots: slots, and so ranks, on a node; the last node may have fewer.
        caches: one a node, as they were left by the epoch before.
        epoch: which.
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
    """A node's shards by size alone; at most so many bytes, and none at all if that is 0."""

    def __init__(self, limit: int) -> None:
        self.limit, self._held = limit, 0
        self._sizes = OrderedDict[int, int]()

    def has(self, shard: int, size: int) -> bool:
        """Whether it is there; from now on it is."""
        if shard in self._sizes:
            self._sizes.move_to_end(shard)
            return True
        if size <= self.limit:
            self._sizes[shard], self._held = size, self._held + size
            while self._held > self.limit:
                self._held -= self._sizes.popitem(last=False)[1]
        return False


def _windows(order: Order, slot: int, epoch: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Where each window of a lane begins, counted in the epoch, and its samples."""
    position = begin = epoch * order.lane_length
    while position < begin + order.lane_length:
        first, places = order.window_at(slot, position)
        yield first - begin, places
        position = first + len(places)


def _requests(slot: int, windows: list[tuple[int, NDArray[np.int64]]]) -> list[tuple[int, int, int]]:
    """(when, slot, shard) of what a slot's reader asks for: a window's shards when it enters the one before."""
    entered = [0, *(first for first, _ in windows)]
    return [
        (when, slot, int(shard))
        for when, (_, places) in zip(entered, windows, strict=False)
        for shard in np.unique(places[:, 0])
    ]
