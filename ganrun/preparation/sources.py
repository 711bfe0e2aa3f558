"""Sources of images: the interface, and arrays in memory. `folder.py` and `shards.py` have the others."""

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from ganrun.data.index import EmbeddingField
from ganrun.preparation.convert_image import EXTENSIONS, Pixels, Stored, UnreadableError
from ganrun.preparation.fields import Members
from ganrun.storage import Entry, expand_user, open_storage

UNFINISHED_NAME = "unfinished.json"
"""Record of an unfinished data set; deleted once the index is written."""
IMAGE = "image"
"""Field of the first picture of a sample, stored as KEY.png; a further picture NAME is stored as KEY.NAME.png."""
ORDER_SEED = 0
"""Seed of the order of images in shards."""

Shape = tuple[int, int, int]
"""Width, height and channels of an image."""
Shapes = dict[str, dict[Shape, str]]
"""Shapes that occur, each with the name of the first such image, by field; the first field is `image`."""


@dataclass(frozen=True)
class Item:
    """One sample before conversion.

    Attributes:
        key: key of the sample in its shard.
        where: name of the sample in messages.
        image: its picture, field `image`; None if it has none.
        members: other members by extension.
        fault: reason why it is no sample, of what looks like one; None for a sample.
        pictures: its further pictures by field, e.g. `source`; all have the size of the first.
    """

    key: str
    where: str
    image: Stored | None
    members: Members
    fault: str | None = None
    pictures: Mapping[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Remarks:
    """Notes on a source, for the user.

    Attributes:
        unread: a line for each image that cannot be read, known before conversion.
        left_out: a line for each kind of file that is no image or no shard.
        numbering: how labels are numbered.
        licences: a line for each work that the images are from: title, author, licence.
        embedding: the encoder of captions that are embedded; None: they are not.
    """

    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    numbering: str = ""
    licences: tuple[str, ...] = ()
    embedding: EmbeddingField | None = field(default=None, repr=False)  # The hash of a source is that of the text.


NO_REMARKS = Remarks()


@dataclass(frozen=True)
class Part:
    """Content of one shard: numbers of images in the source. The key of the first is `first`."""

    name: str
    first: int = 0
    numbers: Sequence[int] = ()


class Source(Protocol):
    """Images to pack into shards. Must be picklable, for worker processes."""

    @property
    def name(self) -> str:
        """Name in messages and in the index."""

    @property
    def size(self) -> int | None:
        """Default image size in pixels; None: that of the images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number; empty if there are no labels or no names."""

    @property
    def remarks(self) -> Remarks:
        """Omitted files, and the numbering of labels."""

    def identity(self) -> str:
        """Return a hash of the content, to recognise the same source again."""

    def old_identity(self) -> str | None:
        """Return the hash of names, sizes and members that older ganrun recorded; None if it left out the sizes."""

    def shapes(self, workers: int) -> Shapes:
        """Return the shapes of the images that can be read."""

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Assign images to shards.

        Args:
            shard_samples: maximum number of images per shard; None: the source decides.
            image_bytes: bytes of a decoded image.
        """

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the samples of a part in order."""


@dataclass(frozen=True)
class ArraySource:
    """Images in memory: `images` uint8 [N, H, W] or [N, H, W, 3], with N integer `labels`."""

    name: str
    images: Pixels
    labels: Sequence[int]
    classes: tuple[str, ...]
    size: int | None = None
    remarks: Remarks = NO_REMARKS

    def identity(self) -> str:
        """Return a hash of all pixels and labels."""
        return hash_of([self.images.tobytes(), repr([int(label) for label in self.labels]).encode()])

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Return the one shape that all images have."""
        height, width, *channels = self.images.shape[1:]
        return {IMAGE: {(width, height, channels[0] if channels else 1): self.name}}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the images over shards."""
        return shuffled_parts(len(self.images), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield pixels, with the label as .cls."""
        for place, number in enumerate(part.numbers):
            label = str(int(self.labels[number])).encode()
            yield Item(key_of(part, place), f"{self.name}, image {number}", self.images[number], {"cls": label})


def image_of(item: Item) -> Stored:
    """Return the picture of a sample.

    Raises:
        UnreadableError: it has none.
    """
    if item.image is not None:
        return item.image
    if item.fault:
        raise UnreadableError(item.fault)
    there = ", ".join(f".{extension}" for extension in sorted(item.members)[:5])
    advice = ""
    if dotted := [each for each in item.members if "." in each and each.rpartition(".")[2] in EXTENSIONS]:
        name = f"{item.key}.{dotted[0]}"
        advice = f"; the ending begins at the first dot of a file name: replace the other dots of {name!r}"
    raise UnreadableError(f"the sample has no image ({', '.join(EXTENSIONS)}), only {there or 'nothing'}{advice}")


def versions(root: str, names: Sequence[str]) -> Iterator[tuple[int, float]]:
    """Yield the size of each file, and the time of its last write: in nanoseconds in a folder, seconds in a bucket."""
    if root.startswith("s3://"):
        objects = open_storage(root).objects()
        found = (objects.get(name, Entry(0, 0.0)) for name in names)
        yield from ((entry.bytes, entry.modified) for entry in found)
        return
    for name in names:
        status = os.stat(Path(expand_user(root.removeprefix("file://")), name))
        yield status.st_size, status.st_mtime_ns


def shuffled_parts(count: int, shard_samples: int | None, image_bytes: int) -> list[Part]:
    """Shuffle 0 .. count - 1, in an order that depends on `count` only, and split it into equal parts.

    By default a shard has at most 4,096 images and 128 MiB of decoded pixels, and there are at least 8 shards, so that
    8 workers can each read shards of their own.
    """
    wanted = shard_samples or max(1, min(4096, (128 << 20) // image_bytes, -(-count // 8)))
    order = list(range(count))
    random.Random(ORDER_SEED).shuffle(order)
    number = -(-count // wanted)
    edges = [count * part // number for part in range(number + 1)]
    return [Part(f"shard-{part:06d}", start, order[start:end]) for part, (start, end) in enumerate(pairwise(edges))]


def key_of(part: Part, place: int) -> str:
    """Return the key of sample number `place` of a part."""
    return f"{part.first + place:08d}"


def hash_of(parts: Iterable[bytes]) -> str:
    """Return the first 16 hex digits of SHA-256 over all parts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]
