"""Batches of the slots a worker owns: fetch a shard, check it, walk it, decode, one tensor a field.

One thread reads ahead; images are decoded by a few more, since the decoder leaves Python's lock alone.
Memory: each slot holds the shards of its window, and `AHEAD` batches a slot wait decoded, so that a worker
needs about slots x shuffle_shards x (size of a shard) whatever the size of the data set.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

from torch import Tensor

from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.index import DataSet
from ganrun.data.order import Order, Places
from ganrun.data.shard import OpenShard
from ganrun.sections import FieldConfig

AHEAD = 2
CLOSE_SECONDS = 10.0
"""So long `close` waits for a read that is under way."""
_DECODERS = 2


class SlotReader:
    """One slot's samples in order, from a position on."""

    def __init__(self, slot: int, position: int, order: Order, open_: Callable[[int], OpenShard]) -> None:
        self.slot, self.position, self.order, self.open = slot, position, order, open_
        self._first, self._places = order.window_at(slot, position)
        self._shards: dict[int, OpenShard] = {}

    def take(self, count: int) -> list[Located]:
        """The next `count` samples as (shard, key, members)."""
        taken = []
        for _ in range(count):
            shard, number = self._next_place()
            if shard not in self._shards:
                self._shards[shard] = self.open(shard)
            opened = self._shards[shard]
            taken.append((opened, *opened.samples[number]))
        return taken

    def _next_place(self) -> Places:
        if self.position - self._first == len(self._places):
            self._first, self._places = self.order.window_at(self.slot, self.position)
            needed = set(self._places[:, 0].tolist())
            self._shards = {shard: opened for shard, opened in self._shards.items() if shard in needed}
        place: Places = self._places[self.position - self._first]
        self.position += 1
        return place


class Stream:
    """Batches of a worker's slots, read ahead.

    Args:
        data: the data set.
        order: its order.
        owned: the slots of this worker; each turn takes one batch of each, in this order.
        slot_batch: images of a slot's batch.
        images: real images shown so far by all slots, of which each slot showed an equal part.
        fields: what to read of each sample.
        pin: whether batches lie in page-locked memory, for copying to a GPU beside its work.
    """

    def __init__(
        self,
        data: DataSet,
        order: Order,
        owned: Sequence[int],
        slot_batch: int,
        images: int,
        fields: Mapping[str, FieldConfig],
        pin: bool = False,
    ) -> None:
        self.data, self.order, self.slot_batch, self.pin = data, order, slot_batch, pin
        self._decoders = {name: Decoder(name, field, data.index) for name, field in fields.items()}
        self._opened: WeakValueDictionary[int, OpenShard] = WeakValueDictionary()
        self._slots = [SlotReader(slot, images // order.slots, order, self._open) for slot in owned]
        self._threads = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._ready: queue.Queue[list[RawBatch] | BaseException] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read_ahead, name="read-ahead", daemon=True)
        self._reader.start()

    def next(self) -> list[RawBatch]:
        """The next batch of each owned slot, on the CPU.

        Raises:
            UserError: a shard or a sample is damaged, or not what the index and the config say.
        """
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)
            raise item
        return item

    def close(self) -> None:
        """Stops reading; a storage that does not answer is left alone with the reader, which ends with the process."""
        self._closed.set()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._reader.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.01)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read_ahead(self) -> None:
        try:
            while not self._closed.is_set():
                self._ready.put([self._batch(slot) for slot in self._slots])
        except BaseException as error:
            self._ready.put(error)

    def _open(self, number: int) -> OpenShard:
        """Slots whose lanes meet in a shard share it."""
        opened = self._opened.get(number)
        if opened is None:
            opened = self._opened[number] = OpenShard(self.data, number)
        return opened

    def _batch(self, slot: SlotReader) -> RawBatch:
        samples = slot.take(self.slot_batch)
        batch = {name: decoder.batch(samples, self._threads, _DECODERS) for name, decoder in self._decoders.items()}
        if not self.pin:
            return batch
        return {name: field.pin_memory() if isinstance(field, Tensor) else field for name, field in batch.items()}
