"""Real images that scores compare with: so many of a data set, evenly spaced in the order of its index."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ganrun.config.schema import FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.fetch import Fetcher
from ganrun.data.index import DataSet
from ganrun.data.shard import OpenShard


class RealImages:
    """Images and labels by number.

    Args:
        data: whose they are.
        samples: how many; all, if there are fewer.
        fields: of the run's samples; the labels are its first field of that kind, or else where they usually are.
        damaged_share: of images that may be passed over, as in training.
        cache: where shards of object storage are kept, as in training; None: nowhere.
    """

    def __init__(
        self,
        data: DataSet,
        samples: int,
        fields: dict[str, FieldConfig],
        damaged_share: float = 0.0,
        cache: ShardCache | None = None,
    ) -> None:
        self.data, self.samples, self.fields = data, min(samples, data.index.samples), fields
        self.damaged_share, self.cache = damaged_share, cache
        self.classes = data.index.classes
        kinds = {field.kind: (name, field) for name, field in reversed(fields.items())}
        self._image = Decoder("image", fields["image"], data.index)
        self._label = Decoder(*kinds.get("label", ("label", FieldConfig(kind="label"))), data.index)
        self._damaged = CorruptSamplePolicy(damaged_share, data.index.samples)
        self._starts = np.cumsum([0, *(shard.samples for shard in data.index.shards)])
        fetcher = Fetcher(data, cache)
        self._open = functools.lru_cache(maxsize=2)(lambda number: fetcher.request(number).result())

    def of(self, samples: int) -> "RealImages":
        """Another number of images of the same data."""
        return RealImages(self.data, samples, self.fields, self.damaged_share, self.cache)

    @property
    def origin(self) -> dict[str, str | int]:
        """What they depend on, for a cache."""
        return {"data": self.data.index.fingerprint, "samples": self.samples, "order": "evenly spaced"}

    def images(self, start: int, count: int) -> Tensor:
        """uint8 [count, C, H, W]."""
        located = [self._locate(number) for number in range(start, start + count)]
        samples = [(opened, *opened.samples[place]) for opened, place in located]
        images = self._damaged.batch(samples, self._decode)["image"]
        assert isinstance(images, Tensor)
        return images

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {"image": torch.stack([self._image.image(*sample) for sample in samples])}

    def labels(self) -> Tensor:
        """Of all, int64 [N]."""
        located = (self._locate(number) for number in range(self.samples))
        return torch.tensor([self._label.label(opened, *opened.samples[place]) for opened, place in located])

    def _locate(self, number: int) -> tuple[OpenShard, int]:
        """The shard of a sample, and its place in there."""
        sample = number * self.data.index.samples // self.samples
        shard = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return self._open(shard), sample - int(self._starts[shard])
