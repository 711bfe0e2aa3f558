"""The fields of a sample: members of a tar to numbers, and many samples to a batch."""

import io
import json
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ganrun.data.index import Index
from ganrun.data.shard import OpenShard, Sample
from ganrun.errors import UserError
from ganrun.sections import FieldConfig

IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
EXTENSIONS = {"image": IMAGE_EXTENSIONS, "label": ("cls",), "text": ("txt",), "vector": ("json", "npy")}
"""Where a field of each kind is looked for if the config does not say."""
Field = Tensor | list[str]
RawBatch = dict[str, Field]
"""Named fields of B samples on the CPU: images uint8 [B, C, H, W], labels int64 [B], vectors float32 [B, N], texts."""
Located = tuple[OpenShard, str, Sample]
"""A sample and where it is: shard, key, members."""


class Decoder:
    """Decodes one field of samples.

    Args:
        name: of the field.
        field: its kind and extension.
        index: of the data set; all images are of its size, and labels are numbers of its classes.
    """

    def __init__(self, name: str, field: FieldConfig, index: Index) -> None:
        self.name, self.kind, self.index = name, field.kind, index
        self.extensions = (field.extension,) if field.extension else EXTENSIONS[field.kind]
        self.channels = field.channels or index.channels

    def batch(self, samples: Sequence[Located], threads: Executor, parts: int) -> Field:
        """The field of all samples; images by `parts` threads at once, since the decoder leaves Python's lock alone.

        Raises:
            UserError: a sample lacks the field, or it is damaged or of another shape; names shard and sample.
        """
        match self.kind:
            case "image":
                return self._images(samples, threads, parts)
            case "label":
                return torch.tensor([self.label(*sample) for sample in samples])
            case "vector":
                return self._vectors(samples)
        return [bytes(self._member(*sample)).decode(errors="replace") for sample in samples]

    def image(self, shard: OpenShard, key: str, members: Sample) -> Tensor:
        """One image, uint8 [C, H, W]."""
        encoded = self._member(shard, key, members)
        try:
            # bytearray: torch warns of buffers it may not write to.
            content = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            image: Tensor = decode_image(content, ImageReadMode.UNCHANGED)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{shard.where}: {self.name} of sample {key!r} is no readable image: {reason}") from error
        expected = (self.channels, self.index.image_size, self.index.image_size)
        if tuple(image.shape) != expected or image.dtype != torch.uint8:
            found, wanted = ("x".join(map(str, shape)) for shape in (image.shape, expected))
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is {found} {image.dtype}, but needed is {wanted} "
                "(channels x height x width) of 8 bits; make the data set again with ganrun.prepare --size"
            )
        return image

    def _images(self, samples: Sequence[Located], threads: Executor, parts: int) -> Tensor:
        size = self.index.image_size
        images = torch.empty(len(samples), self.channels, size, size, dtype=torch.uint8)

        def decode(part: int) -> None:
            for number in range(part, len(samples), parts):
                images[number] = self.image(*samples[number])

        list(threads.map(decode, range(parts)))
        return images

    def label(self, shard: OpenShard, key: str, members: Sample) -> int:
        """One label, in 0 to the number of classes less 1."""
        text, classes = bytes(self._member(shard, key, members)), len(self.index.classes)
        try:
            label = int(text)
        except ValueError:
            raise UserError(f"{shard.where}: {self.name} of sample {key!r} is {text[:20]!r}, no whole number") from None
        if not 0 <= label < classes:
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is {label}, but the index names {classes} classes"
            )
        return label

    def _vectors(self, samples: Sequence[Located]) -> Tensor:
        rows = [self._vector(*sample) for sample in samples]
        for (shard, key, _), row in zip(samples, rows, strict=True):
            if row.shape != rows[0].shape:
                raise UserError(
                    f"{shard.where}: {self.name} of sample {key!r} has {len(row)} numbers, others have {len(rows[0])}"
                )
        return torch.from_numpy(np.stack(rows))

    def _vector(self, shard: OpenShard, key: str, members: Sample) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        content = bytes(self._member(shard, key, members))
        try:
            numbers = np.load(io.BytesIO(content)) if content[:6] == b"\x93NUMPY" else json.loads(content)
            if isinstance(numbers, dict):  # Attributes by name; the same order for all.
                numbers = [numbers[name] for name in sorted(numbers)]
            vector = np.asarray(numbers, np.float32)
            if vector.ndim != 1:
                raise ValueError(f"{vector.ndim} dimensions instead of 1")
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is no list of numbers, JSON or .npy ({error})"
            ) from None
        return vector

    def _member(self, shard: OpenShard, key: str, members: Sample) -> memoryview:
        for extension in self.extensions:
            if extension in members:
                return members[extension]
        wanted = " or ".join(f".{extension}" for extension in self.extensions)
        there = ", ".join(f".{extension}" for extension in members)
        raise UserError(f"{shard.where}: sample {key!r} has no {self.name} ({wanted}), only {there}")
