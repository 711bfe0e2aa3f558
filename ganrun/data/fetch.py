"""Threads that fetch whole shards ahead, verify and open them."""

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakValueDictionary

from ganrun.data.cache import ShardCache
from ganrun.data.index import DataSet
from ganrun.data.shard import OpenShard, mismatch, read_verified, size_mismatch, with_mirror_images
from ganrun.errors import RunError, UserError
from ganrun.storage import TooLargeError

FETCHERS = 4
"""Number of threads."""


class Fetcher:
    """Opens the shards of a data set, each once for all that need it at the time.

    Args:
        data: the data set, or a part of one; a shard then has the samples of that part.
        cache: cache for shards from object storage, or None.
    """

    def __init__(self, data: DataSet, cache: ShardCache | None = None) -> None:
        self.data, self.cache = data, cache
        self.bytes_fetched = 0
        """Bytes read from storage, not from the cache."""
        self.corrupt = 0
        """Number of shards that arrived corrupt over the network and were fetched again."""
        self._lock = threading.Lock()
        self._opened: WeakValueDictionary[int, OpenShard] = WeakValueDictionary()
        self._coming: dict[int, Future[OpenShard]] = {}
        self._threads = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    def request(self, number: int) -> "Future[OpenShard]":
        """Return a shard, now or later. It stays open as long as it is referenced.

        The future raises UserError if the shard is corrupt, missing or access is denied, RunError if its storage does
        not answer.
        """
        with self._lock:
            if number in self._coming:
                return self._coming[number]
            opened = self._opened.get(number)
            if opened is not None:
                ready: Future[OpenShard] = Future()
                ready.set_result(opened)
                return ready
            coming = self._coming[number] = self._threads.submit(self._open, number)
            return coming

    @property
    def faults(self) -> Counter[str]:
        """Number of retried requests to the storage by kind, as in the metric `shard_errors_total`."""
        places = {id(place): place for place in self.data.places}.values()
        return sum((place.traffic.faults for place in places if place.traffic), Counter({"damaged": self.corrupt}))

    def close(self) -> None:
        """Cancel the requests that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _open(self, number: int) -> OpenShard:
        where, shard = self.data.where(number), self.data.index.shards[number]
        try:
            samples = read_verified(self._whole(number), shard, where)
            part = self.data.part.of(samples, shard.sha256)
            numbers = {key: place for place, (key, _) in enumerate(samples)}
            shown = with_mirror_images(part) if self.data.mirror else part
            opened = OpenShard(where, shown, shard.sha256, numbers)
            with self._lock:
                self._opened[number] = opened
            return opened
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"{where}: cannot be read: {error.strerror or error}") from error
        except OSError as error:
            raise RunError(f"{where}: cannot be read: {error.strerror or error}") from error
        finally:
            with self._lock:
                del self._coming[number]

    def _whole(self, number: int) -> bytes:
        """Return the verified bytes of a shard, from the cache or from storage."""
        shard = self.data.index.shards[number]
        if self.cache is None or self.data.places[number].traffic is None:
            return self.fetch(number)
        with self.cache.alone(shard.sha256):
            cached = self.cache.get(shard.sha256)
            if cached is not None and not mismatch(cached, shard):
                return cached
            data = self.fetch(number)
            self.cache.put(shard.sha256, data)
            return data

    def fetch(self, number: int) -> bytes:
        """Return the verified bytes of a shard from storage; retry once if they arrive corrupt over the network.

        Raises:
            UserError: the shard differs from its index.
            OSError: the storage cannot read it.
        """
        data, fault = self._read(number)
        if fault and self.data.places[number].traffic is not None:
            with self._lock:
                self.corrupt += 1
            data, fault = self._read(number)
        if fault:
            raise UserError(f"{self.data.where(number)}: {fault}")
        with self._lock:
            self.bytes_fetched += len(data)
        return data

    def _read(self, number: int) -> tuple[bytes, str | None]:
        """Return the bytes of a shard, and how they differ from the index: a message, or None."""
        shard = self.data.index.shards[number]
        try:
            data = self.data.read(number)
        except TooLargeError as error:
            return b"", size_mismatch(error.size, shard)
        return data, mismatch(data, shard)
