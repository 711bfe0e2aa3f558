"""In which order samples are shown: a pure function of (seed, epoch, slot, position).

An epoch's shards are permuted, laid end to end and cut into one lane a slot, all of equal length; a lane is
shuffled within windows of a few shards. Nothing here knows how many workers there are: a slot's samples are
the same whoever reads them, and a few integers say where a run is.

    shards, permuted     |---3---|-1-|----0----|--2--|
    lanes of 2 slots     |-------------|------------|.     the dot: fewer than `slots` samples left over
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

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

        Returns:
            Number of the window's first sample, and its samples in the order they are shown.
        """
        epoch, within = divmod(position, self.lane_length)
        windows = self._windows(epoch, slot)
        starts = np.cumsum([0] + [_length(window) for window in windows])
        number = int(np.searchsorted(starts, within, side="right")) - 1
        places = np.concatenate([_places(segment) for segment in windows[number]])
        stream = numpy_stream(self.seed, "window", epoch, slot, number)
        return epoch * self.lane_length + int(starts[number]), stream.permutation(places)

    def lane(self, epoch: int, slot: int) -> list[Segment]:
        """The part of the epoch that a slot is shown, before it is shuffled."""
        first, last = slot * self.lane_length, (slot + 1) * self.lane_length
        segments, offset = [], 0
        for segment in _epoch(self.sizes, self.seed, epoch):
            length = segment.stop - segment.start
            start, stop = max(first - offset, 0), min(last - offset, length)
            if start < stop:
                segments.append(Segment(segment.shard, segment.start + start, segment.start + stop))
            offset += length
        return segments

    def _windows(self, epoch: int, slot: int) -> list[list[Segment]]:
        segments = self.lane(epoch, slot)
        return [segments[i : i + self.window] for i in range(0, len(segments), self.window)]


@lru_cache(maxsize=4)
def _epoch(sizes: tuple[int, ...], seed: int, epoch: int) -> list[Segment]:
    """The whole epoch, end to end.

    It starts inside its first shard and ends with what came before: so the samples left over at the end
    differ from epoch to epoch even where there is but one shard.
    """
    stream = numpy_stream(seed, "epoch", epoch)
    shards = [int(shard) for shard in stream.permutation(len(sizes)) if sizes[shard]]
    first = shards[0]
    cut = int(stream.integers(sizes[first]))
    rest = [Segment(shard, 0, sizes[shard]) for shard in shards[1:]]
    return [Segment(first, cut, sizes[first]), *rest, *([Segment(first, 0, cut)] if cut else [])]


def _length(window: list[Segment]) -> int:
    return sum(segment.stop - segment.start for segment in window)


def _places(segment: Segment) -> Places:
    numbers = np.arange(segment.start, segment.stop)
    return np.stack([np.full_like(numbers, segment.shard), numbers], axis=1)
