"""Batches of the slots a worker owns: fetch shards, check them, walk them, decode, one tensor a field.

Threads fetch whole shards ahead, one puts batches together, and a few decode, since the decoders leave Python's
lock alone; no process is forked. Memory does not depend on the size of the data set. A worker holds at most

    ((2 x owned slots + 1) x data.shuffle_shards + FETCHERS) x bytes of the largest shard
    + (AHEAD + 2) x bytes of a turn

as each slot has the window of shards that it is at and is given the next one meanwhile, and the batch that is put
together may begin in a window that is over. (So if a window holds no fewer samples than a batch of a slot.)
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.config.schema import DataConfig
from ganrun.data.cache import ShardCache
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet
from ganrun.data.order import Order, Places
from ganrun.data.shard import OpenShard

AHEAD = 2
CLOSE_SECONDS = 10.0
"""So long `close` waits for a read that is under way."""


class SlotReader:
    """One slot's samples in order, from a position on.

    Args:
        request: fetches a shard, now or soon.
    """

    def __init__(self, slot: int, position: int, order: Order, request: Callable[[int], Future[OpenShard]]) -> None:
        self.slot, self.position, self.order, self.request = slot, position, order, request
        self._first, self._places = order.window_at(slot, position)
        self._shards = self._request(self._places)
        self._opened: dict[int, OpenShard] = {}
        self._next: tuple[int, Places] | None = None
        self._coming: dict[int, Future[OpenShard]] = {}

    def look_ahead(self) -> None:
        """Has the window after this one fetched, too."""
        self._next = self.order.window_at(self.slot, self._first + len(self._places))
        self._coming = self._request(self._next[1])

    def take(self, count: int) -> list[Located]:
        """The next `count` samples as (shard, key, members)."""
        if self._next is None:
            self.look_ahead()
        taken = []
        for _ in range(count):
            shard, number = self._next_place()
            if shard not in self._opened:
                self._opened[shard] = self._shards[shard].result()
            opened = self._opened[shard]
            taken.append((opened, *opened.samples[number]))
        return taken

    def _next_place(self) -> tuple[int, int]:
        if self.position - self._first == len(self._places):
            if self._next is None:
                self.look_ahead()
            assert self._next is not None
            (self._first, self._places), self._shards, self._opened = self._next, self._coming, {}
            # The one after it waits for the next batch: this one may still hold the window that is over.
            self._next, self._coming = None, {}
        shard, number = self._places[self.position - self._first]
        self.position += 1
        return int(shard), int(number)

    def _request(self, places: Places) -> dict[int, Future[OpenShard]]:
        return {shard: self.request(shard) for shard in dict.fromkeys(places[:, 0].tolist())}


class SlotBatches(NamedTuple):
    """A batch of each owned slot; on a GPU, `copied` has passed when they are there."""

    batches: list[RawBatch]
    copied: "torch.cuda.Event | None"


class Stream:
    """Batches of a worker's slots, read ahead.

    Args:
        data: the data set.
        config: which fields are read, and how damaged ones are met.
        order: of the data set.
        owned: the slots of this worker; each turn takes one batch of each, in this order.
        images: real images shown so far by all slots, of which each slot showed an equal part.
        device: where batches are put: on a GPU beside its work, from page-locked memory; None: the CPU.
        cache: where shards of object storage are kept; None: nowhere.
        decoders: threads that decode.
    """

    def __init__(
        self,
        data: DataSet,
        config: DataConfig,
        order: Order,
        owned: Sequence[int],
        images: int,
        device: torch.device | None = None,
        cache: ShardCache | None = None,
        decoders: int = 2,
    ) -> None:
        self.data, self.order, self.device, self.decoders = data, order, device, decoders
        self.slot_batch = config.batch_size // order.slots
        self.fetcher = Fetcher(data, cache)
        self._fields = {name: Decoder(name, field, data.index) for name, field in config.fields.items()}
        self.damaged = CorruptSamplePolicy(config.damaged_share, len(owned) * order.lane_length)
        self._slots = [SlotReader(slot, images // order.slots, order, self.fetcher.request) for slot in owned]
        for slot in self._slots:  # After all slots' first windows.
            slot.look_ahead()
        self._copies: torch.cuda.Stream | None = None
        if device and device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._threads = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._ready: queue.Queue[SlotBatches | BaseException] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read_ahead, name="read-ahead", daemon=True)
        self._reader.start()

    def next(self) -> list[RawBatch]:
        """The next batch of each owned slot, on the device.

        Raises:
            UserError: a shard or a sample is damaged, or not what the index and the config say.
            RunError: the storage does not answer.
        """
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)
            raise item
        if item.copied is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(item.copied)
            for field in (field for batch in item.batches for field in batch.values() if isinstance(field, Tensor)):
                field.record_stream(now)
        return item.batches

    def close(self) -> None:
        """Stops reading; a storage that does not answer is left alone with the reader, which ends with the process."""
        self._closed.set()
        self.fetcher.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._reader.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.01)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read_ahead(self) -> None:
        try:
            while not self._closed.is_set():
                self._ready.put(self._to_device([self._batch(slot) for slot in self._slots]))
        except BaseException as error:
            self._ready.put(error)

    def _batch(self, slot: SlotReader) -> RawBatch:
        return self.damaged.batch(slot.take(self.slot_batch), self._decode)

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {name: decoder.batch(samples, self._threads, self.decoders) for name, decoder in self._fields.items()}

    def _to_device(self, batches: list[RawBatch]) -> SlotBatches:
        if self._copies is None:
            return SlotBatches(batches, None)
        with torch.cuda.stream(self._copies):
            placed: list[RawBatch] = [
                {
                    name: field.pin_memory().to(self.device, non_blocking=True) if isinstance(field, Tensor) else field
                    for name, field in batch.items()
                }
                for batch in batches
            ]
            return SlotBatches(placed, self._copies.record_event())
