"""Real images that scores compare with: a subset of the data, evenly spaced in the order of its index."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ganrun.config.schema import FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.decode import Decoder, Located, RawBatch
from ganrun.data.index import DataSet
from ganrun.data.samples import Samples
from ganrun.errors import UserError


class RealImages:
    """Reads real images and labels by number.

    Args:
        data: the data set, or the part of it that is held out.
        samples: number of images; the size of the data set if that is smaller.
        fields: fields of the run's samples; labels are read from its first label field, or else from `cls`.
        damaged_share: `data.damaged_share`, the share of corrupt images that may be skipped.
        cache: cache of shards from object storage, as in training; None: no cache.
        classes: the run's class names by label; the data set's labels are renumbered to them. None: the data set's own
            classes; empty: images without labels.
        target: the field of the images, `objective.target`.

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
        target: str = "image",
    ) -> None:
        self.data, self.samples, self.fields, self.target = data, min(samples, data.samples), fields, target
        self.damaged_share, self.cache, self.held_out_by = damaged_share, cache, data.held_out_by
        self.classes = data.index.classes if classes is None else classes
        if self.classes and set(self.classes) != set(data.index.classes):
            raise UserError(
                f"the data has the classes {', '.join(data.index.classes) or 'none'}, but the run has "
                f"{', '.join(self.classes) or 'none'}: name data with the same classes, or metrics without classes"
            )
        self._renumbered = torch.tensor([self.classes.index(name) for name in data.index.classes if self.classes])
        kinds = {field.kind: (name, field) for name, field in reversed(fields.items())}
        self._image = Decoder(target, fields[target], data.index)
        self._label = Decoder(*kinds.get("label", ("label", FieldConfig(kind="label"))), data.index)
        self._corrupt = CorruptSamplePolicy(damaged_share, data.samples)
        self._samples = Samples(data, cache)

    def of(self, samples: int) -> "RealImages":
        """Return a subset of another size of the whole data set, held out or not."""
        return RealImages(
            self.data.whole, samples, self.fields, self.damaged_share, self.cache, self.classes, self.target
        )

    def trained_on(self, most: int) -> "RealImages | None":
        """Return the images that the scored run trains on, evenly spaced if there are more than `most`.

        None if these images are not held out of a run's training data.
        """
        data = self.data.held_out_of
        if data is None or self.data.held_out_by is None:
            return None
        return RealImages(data, most, self.fields, self.damaged_share, self.cache, (), self.target)

    @property
    def origin(self) -> dict[str, str | int | float | None]:
        """Everything that decides which pixels are seen: the key of what a cache keeps of them."""
        image, part = self.fields[self.target], self.data.part
        held_out = {"held_out_share" if part.held_out else "trained_on_share": part.share} if part.share else {}
        crop = {"crop": self.data.index.image_size} if self.data.index.stored_size else {}
        return {
            "data": self.data.index.fingerprint,
            "samples": self.samples,
            "order": "evenly spaced",
            "extension": image.extension,
            "channels": image.channels,
            "damaged_share": self.damaged_share,
            **crop,
            **({"size": image.size} if image.size else {}),
            **({"field": self.target} if self.target != "image" else {}),
            **held_out,
        }

    def images(self, start: int, count: int) -> Tensor:
        """Return images start to start + count - 1, uint8 [count, C, H, W].

        Raises:
            UserError: more samples are corrupt than `damaged_share` allows.
        """
        samples = [self._locate(number) for number in range(start, start + count)]
        images = self._corrupt.batch(samples, self._decode)["image"]
        assert isinstance(images, Tensor)
        return images

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {"image": torch.stack([self._image.image(*sample) for sample in samples])}

    def labels(self) -> Tensor:
        """Return the labels of all images, int64 [N], in the run's numbering."""
        labels = torch.tensor([self._label.label(*self._locate(number)) for number in range(self.samples)])
        return self._renumbered[labels] if self.classes else labels

    def _locate(self, number: int) -> Located:
        return self._samples[number * len(self._samples) // self.samples]
