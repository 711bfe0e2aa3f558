"""Samples of a data set by number."""

import functools

import numpy as np

from ganrun.data.cache import ShardCache
from ganrun.data.decode import Located
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet
from ganrun.data.shard import OpenShard


class Samples:
    """Random access to the samples of a data set, numbered from 0 in the order of (shard, number in it).

    Of held-out data (`open_scored`) these are the held-out samples. The numbers depend on the data set alone.

    Args:
        data: the data set, or a part of one.
        cache: cache for shards from object storage, or None.
    """

    def __init__(self, data: DataSet, cache: ShardCache | None = None) -> None:
        self._ends = np.cumsum(data.sizes)
        self._starts = self._ends - data.sizes
        fetcher = Fetcher(data, cache)
        self._open = functools.lru_cache(maxsize=2)(lambda shard: fetcher.request(shard).result())

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Located:
        """Return sample `number`: its shard, key and members.

        Raises:
            IndexError: there is no such sample.
            UserError: its shard is corrupt or missing.
            RunError: the storage does not answer.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        opened: OpenShard = self._open(shard)
        return (opened, *opened.samples[number - int(self._starts[shard])])
