"""Decoders of fields: members of a tar to tensors, samples to a batch."""

import io
import json
import struct
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ganrun.config.schema import FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.captions import read_embeddings
from ganrun.data.decoded import DecodedImages, open_images
from ganrun.data.index import Index
from ganrun.data.shard import MirroredSample, OpenShard, Sample
from ganrun.errors import UserError

Field = Tensor | list[str]
RawBatch = dict[str, Field]
"""Fields of B samples by name, on the CPU: images uint8 [B, C, H, W], labels int64 [B], vectors float32 [B, N], points
float32 [B, C, 1, 1], embeddings float32 [B, captions, N], texts as B strings."""
Located = tuple[OpenShard, str, Sample]
"""Sample with its shard: shard, key, members."""
Pixels = NDArray[np.uint8]
"""Decoded image, [H, W, C]."""
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"


def normalised(batch: RawBatch, dtype: torch.dtype) -> RawBatch:
    """Return a batch with images scaled from uint8 to [-1, 1], and all numbers but integers in `dtype`."""
    return {name: _normalised(field, dtype) for name, field in batch.items()}


def _normalised(field: Field, dtype: torch.dtype) -> Field:
    if not isinstance(field, Tensor):
        return field
    if field.dtype == torch.uint8:
        return field.contiguous(memory_format=torch.channels_last).to(dtype).div_(127.5).sub_(1)
    return field.to(dtype) if field.is_floating_point() else field


class Decoder:
    """Decodes one field of samples.

    Args:
        name: name of the field, for messages.
        field: kind, extension, channels and size of the field.
        index: index of the data set, with the classes of the labels and the size of images without their own.
    """

    def __init__(self, name: str, field: FieldConfig, index: Index) -> None:
        self.name, self.kind, self.index = name, field.kind, index
        self.extensions = field.extensions(name)
        self.channels, self.size = field.channels or index.channels, field.size or index.image_size
        self.stored_size = field.size or index.stored_size or index.image_size
        self.decoded: ShardCache | None = None
        """Cache for decoded images; None: each is decoded each time."""
        self._form = f"{'+'.join(self.extensions)}.{self.stored_size}-{self.size}x{self.channels}"

    def batch(self, samples: Sequence[Located], threads: Executor, parts: int) -> Field:
        """Decode the field of all samples; images in `parts` threads, since their decoders release the GIL.

        Raises:
            UserError: a sample lacks the field, or it is corrupt or of another shape; names shard and sample.
        """
        match self.kind:
            case "image":
                return self._images(samples, threads, parts)
            case "label":
                return torch.tensor([self.label(*sample) for sample in samples])
            case "vector":
                return self.vectors(samples)
            case "point":
                return self._points(samples)
            case "embedding":
                return self._embeddings(samples)
        return [bytes(self._member(*sample)).decode(errors="replace") for sample in samples]

    def image(self, shard: OpenShard, key: str, members: Sample) -> Tensor:
        """Decode one image, uint8 [C, H, W]."""
        return self._images([(shard, key, members)], None, 1)[0]

    def _images(self, samples: Sequence[Located], threads: Executor | None, parts: int) -> Tensor:
        """Decode images to [B, C, H, W] in channels-last memory, which decoders write and convolutions read fastest."""
        images = np.empty((len(samples), self.size, self.size, self.channels), np.uint8)

        def decode(part: int) -> None:
            for number in range(part, len(samples), parts):
                self._image(*samples[number], images[number])

        list(threads.map(decode, range(parts))) if threads else decode(0)
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    @property
    def image_bytes(self) -> int:
        """Bytes of a decoded image; 0 for other fields."""
        return self.size * self.size * self.channels if self.kind == "image" else 0

    def _image(self, shard: OpenShard, key: str, members: Sample, out: Pixels) -> None:
        """Write one image into `out`, cropped and mirrored."""
        if (known := self._images_of(shard)) is None:
            self._crop(shard, key, members, out)
        elif not known.read(number := shard.number(key, members), out):
            self._crop(shard, key, members, out)
            known.write(number, out)
        if isinstance(members, MirroredSample):
            out[:] = out[:, ::-1].copy()

    def _images_of(self, shard: OpenShard) -> DecodedImages | None:
        """Return the decoded images of a shard; None if there is no cache for them."""
        if self.decoded is None or not shard.sha256:
            return None
        if self._form not in shard.decoded:
            found = open_images(self.decoded, shard.sha256, self._form, len(shard.numbers), self.image_bytes)
            shard.decoded.setdefault(self._form, found)
        return shard.decoded[self._form]

    def _crop(self, shard: OpenShard, key: str, members: Sample, out: Pixels) -> None:
        """Decode one image into `out`, cropped."""
        if self.stored_size == self.size:
            self._decode(shard, key, members, out)
        else:
            whole = np.empty((self.stored_size, self.stored_size, self.channels), np.uint8)
            self._decode(shard, key, members, whole)
            border = (self.stored_size - self.size) // 2
            out[:] = whole[border : border + self.size, border : border + self.size]

    def _decode(self, shard: OpenShard, key: str, members: Sample, out: Pixels) -> None:
        encoded = self._member(shard, key, members)
        try:
            found = _decode_jpeg(encoded, out) if encoded[:2] == JPEG else _decode_other(encoded, out)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            fault = f"{shard.where}: {self.name} of sample {key!r} is not a readable image: {reason}"
            raise UserError(fault) from error
        self._check_shape(found, out.shape[0], shard, key)

    def _check_shape(self, found: tuple[int, int, int, str], size: int, shard: OpenShard, key: str) -> None:
        if found != (size, size, self.channels, "uint8"):
            height, width, channels, kind = found
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is {channels}x{height}x{width} {kind}, but must be "
                f"{self.channels}x{size}x{size} (channels x height x width) of 8 bits; "
                "make the data set again with ganrun prepare --size"
            )

    def label(self, shard: OpenShard, key: str, members: Sample) -> int:
        """Decode one label, 0 to the number of classes - 1."""
        text, classes = bytes(self._member(shard, key, members)), len(self.index.classes)
        try:
            label = int(text)
        except ValueError:
            raise UserError(f"{shard.where}: {self.name} of sample {key!r} is {text[:20]!r}, not an integer") from None
        if not 0 <= label < classes:
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is {label}, but the index names {classes} classes"
            )
        return label

    def vectors(self, samples: Sequence[Located]) -> Tensor:
        """Decode vectors, float32 [B, N]."""
        rows = [self._vector(*sample) for sample in samples]
        for (shard, key, _), row in zip(samples, rows, strict=True):
            if row.shape != rows[0].shape:
                raise UserError(
                    f"{shard.where}: {self.name} of sample {key!r} has {len(row)} numbers, others have {len(rows[0])}"
                )
        return torch.from_numpy(np.stack(rows))

    def _points(self, samples: Sequence[Located]) -> Tensor:
        points = self.vectors(samples)
        if points.shape[1] != self.channels:
            shard, key, _ = samples[0]
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} has {points.shape[1]} numbers, but data.channels is "
                f"{self.channels}"
            )
        return points[:, :, None, None]

    def _embeddings(self, samples: Sequence[Located]) -> Tensor:
        """Decode embeddings, float32 [B, captions, N]; NaN beyond the captions of a sample."""
        kind = self.index.embedding
        if kind is None:
            raise UserError(
                f"{samples[0][0].where}: the index records no embeddings; make it with ganrun prepare --embed"
            )
        found = np.full((len(samples), kind.captions, kind.size), np.nan, np.float32)
        for place, (shard, key, members) in enumerate(samples):
            try:
                rows = read_embeddings(self._member(shard, key, members))
                found[place, : len(rows)] = rows
            except ValueError as error:
                raise UserError(f"{shard.where}: {self.name} of sample {key!r} cannot be read ({error})") from error
        return torch.from_numpy(found)

    def _vector(self, shard: OpenShard, key: str, members: Sample) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        content = bytes(self._member(shard, key, members))
        try:
            numbers = np.load(io.BytesIO(content)) if content[:6] == b"\x93NUMPY" else json.loads(content)
            if isinstance(numbers, dict):  # Attributes by name, in the same order for all samples.
                numbers = [numbers[name] for name in sorted(numbers)]
            vector = np.asarray(numbers, np.float32)
            if vector.ndim != 1:
                raise ValueError(f"{vector.ndim} dimensions instead of 1")
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise UserError(
                f"{shard.where}: {self.name} of sample {key!r} is not a list of numbers as JSON or .npy ({error})"
            ) from None
        return vector

    def _member(self, shard: OpenShard, key: str, members: Sample) -> memoryview:
        for extension in self.extensions:
            if extension in members:
                return members[extension]
        wanted = " or ".join(f".{extension}" for extension in self.extensions)
        there = ", ".join(f".{extension}" for extension in members)
        raise UserError(f"{shard.where}: sample {key!r} has no {self.name} ({wanted}), only {there}")


def _decode_other(encoded: memoryview, out: Pixels) -> tuple[int, int, int, str]:
    """Decode a PNG or WebP like `_decode_jpeg`. It is not decoded if its header states another size: it may be huge."""
    stated = _stated_shape(encoded)
    if stated[:2] != out.shape[:2]:
        return stated
    # A bytearray, since torch warns of read-only buffers.
    content = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    image = decode_image(content, ImageReadMode.UNCHANGED)
    found = (image.shape[1], image.shape[2], image.shape[0], str(image.dtype).removeprefix("torch."))
    if found == (*out.shape, "uint8"):
        out[:] = image.permute(1, 2, 0).numpy()
    return found


def _stated_shape(encoded: memoryview) -> tuple[int, int, int, str]:
    """Return the height, width, channels and dtype in the header of a PNG (ISO/IEC 15948) or WebP (RFC 9649).

    Raises:
        ValueError: the content is neither.
    """
    head = bytes(encoded[:30])
    if head[:8] == PNG and head[12:16] == b"IHDR" and len(head) == 30:
        width, height, bits, colours = struct.unpack(">IIBB", head[16:26])
        return height, width, {0: 1, 4: 2, 6: 4}.get(colours, 3), "uint16" if bits == 16 else "uint8"
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        raise ValueError("neither PNG, JPEG nor WebP")
    if head[12:16] == b"VP8X":  # 24 bits each, less 1.
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif head[12:16] == b"VP8L":  # 14 bits each, less 1.
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return height, width, 3, "uint8"


def _decode_jpeg(encoded: memoryview, out: Pixels) -> tuple[int, int, int, str]:
    """Decode into `out` if the shape fits; return height, width, channels and dtype of the image."""
    found = jpeg_shape(encoded)
    if found[:3] == out.shape:
        simplejpeg.decode_jpeg(encoded, "GRAY" if found[2] == 1 else "RGB", buffer=out)
    return found


def jpeg_shape(encoded: memoryview) -> tuple[int, int, int, str]:
    """Return the height, width, channels and dtype in the header of a JPEG.

    Raises:
        ValueError: there is none.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    return height, width, {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colours, 3), "uint8"
