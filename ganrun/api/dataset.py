"""Batches of a data set, as runs read them, for a training loop of one's own."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ganrun.config.schema import DataConfig
from ganrun.data.cache import open_cache
from ganrun.data.decode import Field, RawBatch, normalised
from ganrun.data.index import open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.slots import Slots


class Dataset(IterableDataset[dict[str, Field]]):
    """Endless batches of this worker, in the order of a run with the same settings: each sample once in an epoch.

    A batch is a dict by field: images float32 [B, C, H, W] in [-1, 1], labels int64 [B], vectors float32 [B, N], texts
    as a list. Shards are fetched, checked and decoded ahead in threads, so a DataLoader takes it with `batch_size=None`
    and `num_workers=0`.

    Args:
        shards: folder, s3:// prefix, `package:NAME`, brace range, glob or list of shards with their index.
        batch_size: samples in a batch over all workers.
        fields: kind by name of each field, or its settings, as in `data.fields`; None: the images.
        slots: equal parts of a batch, dealt to the workers: with the same number the batches of any number of workers
            are together the same; None: one a worker.
        seed: of the order.
        crop, mirror, shuffle_shards, damaged_share, cache_mib: as in the section `data` of a config.
        held_out_share: share of each shard that is left out, as `evaluate.held_out_share` does.
        decoders: threads that decode.
        rank, workers: which of how many workers this is; None: of torch.distributed, else of RANK and WORLD_SIZE.

    Attributes:
        classes: names of the classes by label.
        samples: number of samples in the data, without those that are held out.

    Raises:
        UserError: no such data, or settings that do not fit it.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        batch_size: int,
        *,
        fields: Mapping[str, Any] | None = None,
        slots: int | None = None,
        seed: int = 0,
        crop: int | None = None,
        mirror: bool = False,
        shuffle_shards: int = 4,
        held_out_share: float = 0.0,
        damaged_share: float = 0.0,
        cache_mib: int = 1_024,
        decoders: int = 2,
        rank: int | None = None,
        workers: int | None = None,
    ) -> None:
        named = shards if isinstance(shards, str) else list(shards)
        whole = open_data(named, key="shards", crop=crop)
        rank, workers = _place(rank, workers)
        if slots is not None and slots < workers:
            raise UserError(f"slots: {slots} is fewer than workers: {workers}; each worker needs a slot")
        if not 0 <= held_out_share < 1:
            raise UserError(f"held_out_share: {held_out_share} is not allowed; give a share from 0 to below 1")
        if decoders < 1:
            raise UserError(f"decoders: {decoders} is not allowed; give at least 1")
        self._slots = Slots(workers if slots is None else slots, rank, workers)
        given: dict[str, Any] = {"shards": named, "batch_size": batch_size, "slots": self._slots.total}
        given |= {"image_size": whole.index.image_size, "channels": whole.index.channels}
        given |= {"crop": crop, "mirror": mirror, "shuffle_shards": shuffle_shards}
        given |= {"damaged_share": damaged_share, "cache_mib": cache_mib}
        self._config = _data_config(given if fields is None else given | {"fields": dict(fields)})
        if batch_size % self._slots.total:
            raise UserError(f"batch_size: {batch_size} cannot be cut into slots: {self._slots.total}; take a multiple")
        self._data = whole.trained_on(held_out_share, self._config.mirror)
        self._order = Order(self._data.sizes, self._slots.total, seed, self._config.shuffle_shards)
        self._held_out_share, self._decoders, self._images = held_out_share, decoders, 0
        self.classes, self.samples = whole.index.classes, self._data.samples

    def __iter__(self) -> Iterator[dict[str, Field]]:
        """Yield batches from where the last iteration ended, or `load_state_dict` pointed."""
        if get_worker_info() is not None:
            raise UserError("num_workers: ganrun.Dataset reads ahead in threads; give DataLoader(num_workers=0)")
        cache = open_cache(self._config.cache_mib)
        about = (self._data, self._config, self._order, self._slots.owned, self._images, None, cache)
        stream = Stream(*about, decoders=self._decoders)
        try:
            while True:
                parts = stream.next()
                self._images += self._config.batch_size
                yield normalised(_joined(parts), torch.float32)
        finally:
            stream.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches that were yielded, and the settings that the order depends on.

        It is the same on all workers, and any number of workers with the same `slots` may continue from it.
        """
        settings = ("batch_size", "shuffle_shards", "mirror")
        return {
            "images": self._images,
            "data": self._data.index.fingerprint,
            "seed": self._order.seed,
            "slots": self._slots.total,
            "held_out_share": self._held_out_share,
            **{name: getattr(self._config, name) for name in settings},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a position, with the next iteration.

        Raises:
            UserError: it is of other data or of other settings, so that the order would be another one.
        """
        mine = self.state_dict()
        if missing := mine.keys() - state.keys():
            raise UserError(f"state: {', '.join(sorted(missing))} is missing; give what state_dict() returned")
        images = state["images"]
        if type(images) is not int or images < 0 or images % self._config.batch_size:
            raise UserError(f"state: images: {images!r} is no multiple of batch_size: {self._config.batch_size}")
        for name in mine.keys() - {"images"}:
            if state[name] != mine[name]:
                raise UserError(f"state: {name} was {state[name]!r}, is {mine[name]!r}; give the same")
        self._images = images


def _place(rank: int | None, workers: int | None) -> tuple[int, int]:
    """Return rank and number of workers: as given, else those of torch.distributed, else of torchrun's variables."""
    if rank is None and workers is None and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    if rank is None and workers is None:
        rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank is None or workers is None or not 0 <= rank < workers:
        raise UserError(f"rank: {rank} of workers: {workers}; give both, the rank from 0 to workers - 1")
    return rank, workers


def _data_config(values: dict[str, Any]) -> DataConfig:
    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise UserError(f"ganrun.Dataset: {'; '.join(faults)}") from error


def _joined(parts: Sequence[RawBatch]) -> RawBatch:
    """Return the batches of several slots as one."""
    if len(parts) == 1:
        return parts[0]
    return {name: _concatenated([part[name] for part in parts]) for name in parts[0]}


def _concatenated(fields: Sequence[Field]) -> Field:
    tensors = [field for field in fields if isinstance(field, Tensor)]
    return torch.cat(tensors) if tensors else [text for field in fields for text in field]  # type: ignore[misc]
