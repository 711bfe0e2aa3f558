"""Order in which samples are shown: a pure function of (seed, epoch, slot, position).

The shards of an epoch are permuted, laid end to end and cut into one lane per slot, all of equal length. A lane is
shuffled within windows of a few shards. The number of workers plays no part: the samples of a slot are the same on any
worker, and a few integers are the position of a run.

    shards, permuted     |---3---|-1-|----0----|--2--|
    lanes of 2 slots     |-------------|------------|.     the dot: fewer than `slots` samples, not shown
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from ganrun.errors import UserError
from ganrun.rng import numpy_stream

Places = NDArray[np.int64]
"""Rows (shard, number of the sample in it), [n, 2]."""


@dataclass(frozen=True)
class Segment:
    """Samples `start` to `stop` of a shard."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """Order of a data set.

    Attributes:
        sizes: number of samples in each shard, without those that are held out: these are not numbered.
        slots: number of lanes of an epoch.
        seed: of the run.
        window: number of shards that are shuffled together.
    """

    sizes: tuple[int, ...]
    slots: int
    seed: int
    window: int

    def __post_init__(self) -> None:
        if self.lane_length == 0:
            raise UserError(f"data.slots: {self.slots} is more than the {sum(self.sizes)} samples of data.shards")

    @cached_property
    def lane_length(self) -> int:
        """Number of samples that each slot shows per epoch."""
        return sum(self.sizes) // self.slots

    @property
    def left_over(self) -> int:
        """Number of samples that an epoch does not show; they differ from epoch to epoch."""
        return sum(self.sizes) - self.lane_length * self.slots

    def window_at(self, slot: int, position: int) -> tuple[int, Places]:
        """Return the shuffled window that holds sample number `position` of a slot, counted over all epochs.

        The time does not depend on the number of shards, except for the first window of an epoch.

        Returns:
            Number of the first sample of the window, and its samples in the order in which they are shown.
        """
        epoch, within = divmod(position, self.lane_length)
        laid, lane = self._laid(epoch), slot * self.lane_length
        first = laid.segment_at(lane)
        number = (laid.segment_at(lane + within) - first) // self.window
        start = int(laid.ends[first + number * self.window - 1]) if number else lane
        segments = laid.between(start, lane + self.lane_length, at_most=self.window)
        places = np.concatenate([_places(segment) for segment in segments])
        stream = numpy_stream(self.seed, "window", epoch, slot, number)
        return epoch * self.lane_length + start - lane, stream.permutation(places)

    def lane(self, epoch: int, slot: int) -> list[Segment]:
        """Return the part of an epoch that a slot shows, not shuffled."""
        first = slot * self.lane_length
        return self._laid(epoch).between(first, first + self.lane_length, at_most=len(self.sizes) + 1)

    @cached_property
    def _laid(self) -> "Callable[[int], _Epoch]":
        """Layout of an epoch by its number; the last few are cached."""
        return lru_cache(maxsize=4)(partial(_lay, np.array(self.sizes), self.seed))


@dataclass(frozen=True)
class _Epoch:
    """Segments of an epoch, end to end: shard, first sample in it, end position in the epoch. 24 bytes per shard."""

    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def segment_at(self, position: int) -> int:
        """Return the number of the segment that holds a position of the epoch."""
        return int(np.searchsorted(self.ends, position, side="right"))

    def between(self, first: int, last: int, at_most: int) -> list[Segment]:
        """Return at most `at_most` segments that cover positions `first` to `last` (exclusive), cut to these."""
        begin = self.segment_at(first)
        found = []
        for number in range(begin, min(begin + at_most, self.segment_at(last - 1) + 1)):
            offset = int(self.ends[number - 1]) if number else 0
            shift = int(self.starts[number]) - offset
            start, stop = max(first, offset) + shift, min(last, int(self.ends[number])) + shift
            found.append(Segment(int(self.shards[number]), start, stop))
        return found


def _lay(sizes: NDArray[np.int64], seed: int, epoch: int) -> _Epoch:
    """Permute the shards that are not empty.

    The epoch starts at a random sample of its first shard and ends with the part before it, so that the samples not
    shown differ from epoch to epoch even if there is only one shard.
    """
    stream = numpy_stream(seed, "epoch", epoch)
    permuted = stream.permutation(len(sizes))
    shards = permuted[sizes[permuted] > 0]
    first = shards[:1]
    cut = int(stream.integers(sizes[first[0]]))
    shards = np.concatenate([shards, first if cut else first[:0]])
    starts, lengths = np.zeros_like(shards), sizes[shards]
    starts[0], lengths[0] = cut, lengths[0] - cut
    if cut:
        lengths[-1] = cut
    return _Epoch(shards, starts, np.cumsum(lengths))


def _places(segment: Segment) -> Places:
    numbers = np.arange(segment.start, segment.stop)
    return np.stack([np.full_like(numbers, segment.shard), numbers], axis=1)
