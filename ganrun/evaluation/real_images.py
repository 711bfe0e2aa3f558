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
from ganrun.errors import UserError


class RealImages:
    """Reads real images and labels by number.

    Args:
        data: the data set.
        samples: number of images; the size of the data set if that is smaller.
        fields: fields of the run's samples; labels are read from its first label field, or else from `cls`.
        damaged_share: `data.damaged_share`, the share of corrupt images that may be skipped.
        cache: cache of shards from object storage, as in training; None: no cache.
        classes: the run's class names by label; the data set's labels are renumbered to them. None: the data set's own
            classes; empty: images without labels.

    Raises:
        UserError: the data set has other class names than `classes`.
    """

    def __init__(
        self,
        data: DataSet,
        samples: int,
        fields: dict[str, FieldConfig],
        damaged_share: float = 0.0,
        cache: ShardCache | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.data, self.samples, self.fields = data, min(samples, data.index.samples), fields
        self.damaged_share, self.cache = damaged_share, cache
        self.classes = data.index.classes if classes is None else classes
        if self.classes and set(self.classes) != set(data.index.classes):
            raise UserError(
                f"the data has the classes {', '.join(data.index.classes) or 'none'}, but the run has "
                f"{', '.join(self.classes) or 'none'}: name data with the same classes, or metrics without classes"
            )
        self._renumbered = torch.tensor([self.classes.index(name) for name in data.index.classes if self.classes])
        kinds = {field.kind: (name, field) for name, field in reversed(fields.items())}
        self._image = Decoder("image", fields["image"], data.index)
        self._label = Decoder(*kinds.get("label", ("label", FieldConfig(kind="label"))), data.index)
        self._corrupt = CorruptSamplePolicy(damaged_share, data.index.samples)
        self._starts = np.cumsum([0, *(shard.samples for shard in data.index.shards)])
        fetcher = Fetcher(data, cache)
        self._open = functools.lru_cache(maxsize=2)(lambda number: fetcher.request(number).result())

    def of(self, samples: int) -> "RealImages":
        """Return a subset of another size of the same data."""
        return RealImages(self.data, samples, self.fields, self.damaged_share, self.cache, self.classes)

    @property
    def origin(self) -> dict[str, str | int | float | None]:
        """Everything that decides which pixels are seen: the key of what a cache keeps of them."""
        image = self.fields["image"]
        return {
            "data": self.data.index.fingerprint,
            "samples": self.samples,
            "order": "evenly spaced",
            "extension": image.extension,
            "channels": image.channels,
            "damaged_share": self.damaged_share,
        }

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
        """Return the labels of all images, int64 [N], in the run's numbering."""
        located = (self._locate(number) for number in range(self.samples))
        labels = torch.tensor([self._label.label(opened, *opened.samples[place]) for opened, place in located])
        return self._renumbered[labels] if self.classes else labels

    def _locate(self, number: int) -> tuple[OpenShard, int]:
        """Return the shard of image `number`, and its index in the shard."""
        sample = number * self.data.index.samples // self.samples
        shard = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return self._open(shard), sample - int(self._starts[shard])
