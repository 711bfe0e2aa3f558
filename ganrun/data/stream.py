"""Batches of the slots that a worker owns: one tensor per field, decoded from shards.

Threads fetch whole shards ahead, one assembles batches, a few decode (the decoders release the GIL). No process is
forked. Memory does not depend on the size of the data set. A worker holds at most

    ((2 x owned slots + 1) x data.shuffle_shards + FETCHERS) x bytes of the largest shard
    + (AHEAD + 2) x bytes of a turn

Each slot has its current window of shards and prefetches the next one, and the batch being assembled may begin in the
window before. (This requires that a window holds at least a batch of a slot.) A shard that is gzipped or is read by
webdataset is in memory twice while it is opened: FETCHERS shards more.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.config.schema import DataConfig, FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.decoded import fit
from ganrun.data.fetch import Fetcher
from ganrun.data.gpu_jpeg import GpuDecoder
from ganrun.data.index import DataSet, Index
from ganrun.data.order import Order, Places
from ganrun.data.shard import OpenShard

AHEAD = 2
"""Number of turns that are ready before they are asked for."""
CLOSE_SECONDS = 10.0
"""Longest wait of `close` for a read in progress."""


class SlotReader:
    """Samples of one slot in order, from a position on.

    Args:
        request: returns a shard by its number, now or later.
    """

    def __init__(self, slot: int, position: int, order: Order, request: Callable[[int], Future[OpenShard]]) -> None:
        self.slot, self.position, self.order, self.request = slot, position, order, request
        self._first, self._places = order.window_at(slot, position)
        self._shards = self._request(self._places)
        self._opened: dict[int, OpenShard] = {}
        self._next: tuple[int, Places] | None = None
        self._coming: dict[int, Future[OpenShard]] = {}

    def look_ahead(self) -> None:
        """Request the shards of the next window."""
        self._next = self.order.window_at(self.slot, self._first + len(self._places))
        self._coming = self._request(self._next[1])

    def take(self, count: int) -> list[Located]:
        """Return the next `count` samples as (shard, key, members)."""
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
            # The next window is requested with the next batch: this batch may still reference the previous window.
            self._next, self._coming = None, {}
        shard, number = self._places[self.position - self._first]
        self.position += 1
        return int(shard), int(number)

    def _request(self, places: Places) -> dict[int, Future[OpenShard]]:
        return {shard: self.request(shard) for shard in dict.fromkeys(places[:, 0].tolist())}


def decoders_of(
    fields: Mapping[str, FieldConfig], index: Index, cache: ShardCache | None, gpu: torch.device | None = None
) -> dict[str, Decoder]:
    """Return the decoders of a run's fields.

    Images are decoded on `gpu` if it is given. Else decoded images are cached if all of the data set fit.
    """
    if gpu is not None:
        return {name: GpuDecoder(name, field, index, gpu) for name, field in fields.items()}
    decoders = {name: Decoder(name, field, index) for name, field in fields.items()}
    sizes = [decoder.image_bytes for decoder in decoders.values() if decoder.image_bytes]
    if cache is not None and fit(cache, index, sizes):
        for decoder in decoders.values():
            decoder.decoded = cache
    return decoders


class SlotBatches(NamedTuple):
    """Batch of each owned slot, and on a GPU the event that their copies are complete."""

    batches: list[RawBatch]
    copied: "torch.cuda.Event | None"


class Stream:
    """Prefetched batches of a worker's slots.

    Args:
        data: the data set, or its part that is trained on.
        config: section `data`: fields to decode, batch size, share of corrupt samples that may be skipped.
        order: order of the data set.
        owned: slots of this worker; each turn takes one batch of each, in this order.
        images: real images shown so far by all slots together, the same number by each.
        device: device of the batches; to a GPU they are copied from pinned memory on a stream of their own. None: CPU.
        cache: cache for shards from object storage and for decoded images, or None.
        decoders: number of decoder threads.
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
        self._fields = decoders_of(config.fields, data.index, cache, device if config.decode == "gpu" else None)
        self.corrupt_samples = CorruptSamplePolicy(config.damaged_share, len(owned) * order.lane_length)
        self._slots = [SlotReader(slot, images // order.slots, order, self.fetcher.request) for slot in owned]
        for slot in self._slots:  # After the first windows of all slots.
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
        """Return the next batch of each owned slot, on the device.

        Raises:
            UserError: a shard or a sample is corrupt, or does not fit index and config.
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
        """Stop reading. If the storage does not answer, the reader thread remains until the process ends."""
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
                self._ready.put(self._next_batches())
        except BaseException as error:
            self._ready.put(error)

    def _batch(self, slot: SlotReader) -> RawBatch:
        return self.corrupt_samples.batch(slot.take(self.slot_batch), self._decode)

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {name: decoder.batch(samples, self._threads, self.decoders) for name, decoder in self._fields.items()}

    def _next_batches(self) -> SlotBatches:
        if self._copies is None:
            return SlotBatches([self._batch(slot) for slot in self._slots], None)
        with torch.cuda.stream(self._copies):  # On which nvJPEG decodes, too.
            batches = [self._placed(self._batch(slot)) for slot in self._slots]
            return SlotBatches(batches, self._copies.record_event())

    def _placed(self, batch: RawBatch) -> RawBatch:
        """Copy what is on the CPU to the GPU."""
        return {
            name: field.pin_memory().to(self.device, non_blocking=True)
            if isinstance(field, Tensor) and field.device.type == "cpu"
            else field
            for name, field in batch.items()
        }
