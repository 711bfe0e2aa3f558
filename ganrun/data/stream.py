"""Batches of the slots a worker owns: fetch a shard, check it, walk it, decode, one uint8 tensor a field.

One thread reads ahead; images are decoded by a few more, since the decoder leaves Python's lock alone.
Memory: each slot holds the shards of its window, and `AHEAD` batches a slot wait decoded, so that a worker
needs about slots x shuffle_shards x (size of a shard) whatever the size of the data set.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ganrun.data.index import DataSet
from ganrun.data.order import Order, Places
from ganrun.data.shard import Sample, open_shard
from ganrun.errors import UserError

Batch = dict[str, Tensor]
"""Named fields: image uint8 [B, C, H, W], label int64 [B]."""

AHEAD = 2
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
CLOSE_SECONDS = 10.0
"""So long `close` waits for a read that is under way."""
_DECODERS = 2


class OpenShard:
    """The samples of a shard, checked."""

    def __init__(self, data: DataSet, number: int) -> None:
        self.where = data.where(number)
        try:
            content = data.read(number)
        except OSError as error:
            raise UserError(f"{self.where}: cannot be read: {error.strerror or error}") from error
        self.samples = open_shard(content, data.index.shards[number], self.where)


class Slot:
    """One slot's samples in order, from a position on."""

    def __init__(self, slot: int, position: int, order: Order, open_: Callable[[int], OpenShard]) -> None:
        self.slot, self.position, self.order, self.open = slot, position, order, open_
        self._first, self._places = order.window_at(slot, position)
        self._shards: dict[int, OpenShard] = {}

    def take(self, count: int) -> list[tuple[OpenShard, str, Sample]]:
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
        fields: what to read, `image` and perhaps `label`.
        pin: whether batches lie in page-locked memory, for copying to a GPU beside its work.
    """

    def __init__(
        self,
        data: DataSet,
        order: Order,
        owned: Sequence[int],
        slot_batch: int,
        images: int,
        fields: Sequence[str] = ("image",),
        pin: bool = False,
    ) -> None:
        self.data, self.fields, self.slot_batch, self.pin = data, tuple(fields), slot_batch, pin
        self._opened: WeakValueDictionary[int, OpenShard] = WeakValueDictionary()
        self._slots = [Slot(slot, images // order.slots, order, self._open) for slot in owned]
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read_ahead, name="read-ahead", daemon=True)
        self._reader.start()

    def next(self) -> list[Batch]:
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
        self._decoders.shutdown(wait=False, cancel_futures=True)

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

    def _batch(self, slot: Slot) -> Batch:
        samples = slot.take(self.slot_batch)
        batch = {}
        if "image" in self.fields:
            batch["image"] = self._images(samples)
        if "label" in self.fields:
            batch["label"] = torch.tensor([self._label(*sample) for sample in samples])
        return {name: field.pin_memory() for name, field in batch.items()} if self.pin else batch

    def _images(self, samples: list[tuple[OpenShard, str, Sample]]) -> Tensor:
        index = self.data.index
        images = torch.empty(len(samples), index.channels, index.image_size, index.image_size, dtype=torch.uint8)

        def decode(start: int) -> None:
            for number in range(start, len(samples), _DECODERS):
                images[number] = decode_sample(*samples[number], expected=tuple(images.shape[1:]))

        list(self._decoders.map(decode, range(_DECODERS)))
        return images

    def _label(self, shard: OpenShard, key: str, members: Sample) -> int:
        try:
            label = int(bytes(members["cls"]))
        except (KeyError, ValueError):
            raise UserError(f"{shard.where}: sample {key!r} has no label (a .cls with a whole number)") from None
        if not 0 <= label < max(len(self.data.index.classes), 1):
            raise UserError(f"{shard.where}: sample {key!r} has label {label}, but the index names no such class")
        return label


def decode_sample(shard: OpenShard, key: str, members: Sample, expected: tuple[int, ...]) -> Tensor:
    """The image of a sample, uint8 [C, H, W].

    Raises:
        UserError: there is none, it is damaged, or its shape is not the expected one.
    """
    encoded = next((members[name] for name in IMAGE_EXTENSIONS if name in members), None)
    if encoded is None:
        raise UserError(f"{shard.where}: sample {key!r} has no image ({', '.join(IMAGE_EXTENSIONS)})")
    try:
        image: Tensor = decode_image(
            torch.from_numpy(np.frombuffer(bytearray(encoded), np.uint8)), ImageReadMode.UNCHANGED
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{shard.where}: sample {key!r} is no readable image: {reason}") from error
    if tuple(image.shape) != expected or image.dtype != torch.uint8:
        found, wanted = ("x".join(map(str, shape)) for shape in (image.shape, expected))
        raise UserError(
            f"{shard.where}: the image of sample {key!r} is {found} {image.dtype}, but the index says {wanted} "
            "(channels x height x width) of 8 bits; make the data set again with ganrun.prepare --size"
        )
    return image
