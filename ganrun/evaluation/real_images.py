"""Real images that scores compare with: a subset of the data, evenly spaced in the order of its index."""

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
    """Reads real images and labels by number.

    Args:
        data: the data set.
        samples: size of the subset; all samples if the data has fewer.
        fields: `data.fields` of the run. Labels are read from its first field of kind `label`, or from `cls`.
        damaged_share: `data.damaged_share`, the share of corrupt images that may be skipped.
        cache: local cache of shards in object storage; None: no cache.
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
        self._corrupt = CorruptSamplePolicy(damaged_share, data.index.samples)
        self._starts = np.cumsum([0, *(shard.samples for shard in data.index.shards)])
        fetcher = Fetcher(data, cache)
        self._open = functools.lru_cache(maxsize=2)(lambda number: fetcher.request(number).result())

    def of(self, samples: int) -> "RealImages":
        """Return a subset of another size of the same data."""
        return RealImages(self.data, samples, self.fields, self.damaged_share, self.cache)

    @property
    def origin(self) -> dict[str, str | int]:
        """Key of the subset for caches: fingerprint of the data, number of samples and order."""
        return {"data": self.data.index.fingerprint, "samples": self.samples, "order": "evenly spaced"}

    def images(self, start: int, count: int) -> Tensor:
        """Return images start to start + count - 1, uint8 [count, C, H, W].

        Raises:
            UserError: more samples are corrupt than `damaged_share` allows.
        """
        located = [self._locate(number) for number in range(start, start + count)]
        samples = [(opened, *opened.samples[place]) for opened, place in located]
        images = self._corrupt.batch(samples, self._decode)["image"]
        assert isinstance(images, Tensor)
        return images

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {"image": torch.stack([self._image.image(*sample) for sample in samples])}

    def labels(self) -> Tensor:
        """Return the labels of the whole subset, int64 [N]."""
        located = (self._locate(number) for number in range(self.samples))
        return torch.tensor([self._label.label(opened, *opened.samples[place]) for opened, place in located])

    def _locate(self, number: int) -> tuple[OpenShard, int]:
        """Return the shard of image `number`, and its index in the shard."""
        sample = number * self.data.index.samples // self.samples
        shard = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return self._open(shard), sample - int(self._starts[shard])
