"""In which order samples are shown: a pure function of (seed, epoch, slot, position).

An epoch's shards are permuted, laid end to end and cut into one lane a slot, all of equal length; a lane is
shuffled within windows of a few shards. Nothing here knows how many workers there are: a slot's samples are
the same whoever reads them, and a few integers say where a run is.

    shards, permuted     |---3---|-1-|----0----|--2--|
    lanes of 2 slots     |-------------|------------|.     the dot: fewer than `slots` samples left over
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from ganrun.errors import UserError
from ganrun.rng import numpy_stream

Places = NDArray[np.int64]
"""[n, 2]: (shard, number of the sample in it)."""


@dataclass(frozen=True)
class Segment:
    """Samples `start` to `stop` of a shard."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """The order of a data set whose shards hold `sizes` samples.

    Attributes:
        sizes: samples in each shard.
        slots: lanes an epoch is cut into.
        seed: of the run.
        window: shards that are shuffled together.
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
        """Samples that each slot is shown in an epoch."""
        return sum(self.sizes) // self.slots

    @property
    def left_over(self) -> int:
        """Samples that an epoch does not show; which ones differs from epoch to epoch."""
        return sum(self.sizes) - self.lane_length * self.slots

    def window_at(self, slot: int, position: int) -> tuple[int, Places]:
        """The shuffled window that holds a slot's sample number `position`, counted over all epochs.

        Its cost does not grow with the number of shards, but for the first one of an epoch.

        Returns:
            Number of the window's first sample, and its samples in the order they are shown.
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
        """The part of the epoch that a slot is shown, before it is shuffled."""
        first = slot * self.lane_length
        return self._laid(epoch).between(first, first + self.lane_length, at_most=len(self.sizes) + 1)

    @cached_property
    def _laid(self) -> "Callable[[int], _Epoch]":
        """Epochs end to end; the few that workers are at are kept."""
        return lru_cache(maxsize=4)(partial(_lay, np.array(self.sizes), self.seed))


@dataclass(frozen=True)
class _Epoch:
    """A whole epoch, end to end: of each segment its shard, the sample it begins with, and where in the epoch it ends;
    24 bytes a shard."""

    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def segment_at(self, position: int) -> int:
        """Number of the segment that holds a position of the epoch."""
        return int(np.searchsorted(self.ends, position, side="right"))

    def between(self, first: int, last: int, at_most: int) -> list[Segment]:
        """The segments from position `first` to before `last`, cut to these, but no more than so many."""
        begin = self.segment_at(first)
        found = []
        for number in range(begin, min(begin + at_most, self.segment_at(last - 1) + 1)):
            offset = int(self.ends[number - 1]) if number else 0
            shift = int(self.starts[number]) - offset
            start, stop = max(first, offset) + shift, min(last, int(self.ends[number])) + shift
            found.append(Segment(int(self.shards[number]), start, stop))
        return found


def _lay(sizes: NDArray[np.int64], seed: int, epoch: int) -> _Epoch:
    """The shards that hold something, permuted.

    The epoch starts inside its first shard and ends with what came before: so the samples left over at the end
    differ from epoch to epoch even where there is but one shard.
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
