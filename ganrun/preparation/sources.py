"""Sources of images: the interface, arrays in memory and existing shards. `folder.py` has folders and buckets."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from ganrun.data.index import INDEX_NAME, Index
from ganrun.data.shard import read_samples
from ganrun.errors import UserError
from ganrun.preparation.convert_image import EXTENSIONS, Pixels, Stored, UnreadableError, read_shape
from ganrun.preparation.fields import Members
from ganrun.storage import INDEX_BYTES, open_storage

SHARD_ENDINGS = (".tar", ".tar.gz")
UNFINISHED_NAME = "unfinished.json"
"""Record of an unfinished data set; deleted once the index is written."""
ORDER_SEED = 0
"""Seed of the order of images in shards."""

Shape = tuple[int, int, int]
"""Width, height and channels of an image."""


@dataclass(frozen=True)
class Item:
    """One sample before conversion.

    Attributes:
        key: key of the sample in its shard.
        where: name of the sample in messages.
        image: its picture; None if it has none.
        members: other members by extension.
    """

    key: str
    where: str
    image: Stored | None
    members: Members


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

    def identity(self) -> str:
        """Return a hash of the content, to recognise the same source again."""

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Return the shapes that occur, each with the name of the first such image."""

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

    def identity(self) -> str:
        """Return a hash of all pixels and labels."""
        return hash_of([self.images.tobytes(), repr([int(label) for label in self.labels]).encode()])

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Return the one shape that all images have."""
        height, width, *channels = self.images.shape[1:]
        return {(width, height, channels[0] if channels else 1): self.name}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the images over shards."""
        return shuffled_parts(len(self.images), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield pixels, with the label as .cls."""
        for place, number in enumerate(part.numbers):
            label = str(int(self.labels[number])).encode()
            yield Item(key_of(part, place), f"{self.name}, image {number}", self.images[number], {"cls": label})


@dataclass(frozen=True)
class ShardsSource:
    """Existing WebDataset shards in a folder or prefix. Order, keys and all members are kept."""

    uri: str
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    name: str = "shards"
    size: int | None = None

    def identity(self) -> str:
        """Return a hash of the names of the shards. Hashing their content would download everything twice."""
        return hash_of(name.encode() for name in self.names)

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Return the shape of the first readable image. The others are checked against it during conversion."""
        for name in self.names:
            for item in self.items(Part(name)):
                try:
                    if item.image is not None:
                        return {read_shape(item.image): item.where}
                except UnreadableError:
                    continue
        return {}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Return one part per shard."""
        return [Part(name) for name in self.names]

    def items(self, part: Part) -> Iterator[Item]:
        """Read a shard and yield its samples."""
        return self.samples(part.name, open_storage(self.uri).read(part.name))

    def samples(self, name: str, data: bytes) -> Iterator[Item]:
        """Yield the samples of shard `name` from its bytes.

        Raises:
            UserError: the shard is corrupt, or a key would be unpacked outside its folder.
        """
        where = f"{self.uri}/{name}"
        for key, members in read_samples(data, where):
            if key.startswith("/") or ".." in key.split("/"):  # Protects users who unpack our shards.
                raise UserError(f"{where}: sample {key!r} would be unpacked outside its folder; remove or rename it")
            kind = next((extension for extension in EXTENSIONS if extension in members), None)
            rest = {extension: bytes(content) for extension, content in members.items() if extension != kind}
            yield Item(key, f"{where}, sample {key!r}", members[kind] if kind else None, rest)


def open_shards(uri: str) -> ShardsSource:
    """Find the shards in a folder or prefix. Class names come from the index, if there is one.

    Raises:
        UserError: no shards, or the data set is unfinished.
    """
    uri = uri.rstrip("/") or "/"
    place = open_storage(uri)
    try:
        names = place.list()
    except OSError as error:
        raise UserError(f"shards:{uri}: {error.strerror or error}; give the folder that holds the shards") from error
    shards = tuple(name for name in names if name.endswith(SHARD_ENDINGS))
    if not shards:
        raise UserError(f"shards:{uri}: no *.tar or *.tar.gz; give the folder that holds the shards")
    if UNFINISHED_NAME in names:
        raise UserError(f"shards:{uri}: the data set is unfinished; run the command that was making it again")
    if INDEX_NAME not in names:
        return ShardsSource(uri, shards)
    return ShardsSource(
        uri, shards, Index.from_json(place.read(INDEX_NAME, INDEX_BYTES), f"{uri}/{INDEX_NAME}").classes
    )


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
