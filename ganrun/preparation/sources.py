"""Where images come from: arrays in memory, or shards that exist already; folder.py has a folder."""

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
"""Stands in a data set that is being made, until its index does."""
ORDER_SEED = 0

Shape = tuple[int, int, int]
"""Width, height, channels."""


@dataclass(frozen=True)
class Item:
    """One sample before conversion; `where` names it in messages."""

    key: str
    where: str
    image: Stored | None
    members: Members


@dataclass(frozen=True)
class Part:
    """What goes into one shard: images by their number in the source, the first keyed `first`."""

    name: str
    first: int = 0
    numbers: Sequence[int] = ()


class Source(Protocol):
    """Images to make shards of. Travels to worker processes."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def size(self) -> int | None:
        """Image size to make unless told otherwise; None: as the images are."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number; empty if there are no labels, or no names for them."""

    def identity(self) -> str:
        """A hash that changes with what is in the source."""

    def shapes(self, workers: int) -> dict[Shape, str]:
        """The shapes of the images, each with where it was seen first."""

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """What goes into which shard."""

    def items(self, part: Part) -> Iterator[Item]:
        """The samples of a part, in order."""


@dataclass(frozen=True)
class ArraySource:
    """Images in memory: `images` uint8 [N, H, W] or [N, H, W, 3], one label each."""

    name: str
    images: Pixels
    labels: Sequence[int]
    classes: tuple[str, ...]
    size: int | None = None

    def identity(self) -> str:
        """Over all pixels and labels."""
        return hash_of([self.images.tobytes(), repr([int(label) for label in self.labels]).encode()])

    def shapes(self, workers: int) -> dict[Shape, str]:
        """All are equal."""
        height, width, *channels = self.images.shape[1:]
        return {(width, height, channels[0] if channels else 1): self.name}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffled."""
        return shuffled_parts(len(self.images), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Pixels with their label as .cls."""
        for place, number in enumerate(part.numbers):
            label = str(int(self.labels[number])).encode()
            yield Item(key_of(part, place), f"{self.name}, image {number}", self.images[number], {"cls": label})


@dataclass(frozen=True)
class ShardsSource:
    """WebDataset shards in a folder or prefix; order, keys and all members stay."""

    uri: str
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    name: str = "shards"
    size: int | None = None

    def identity(self) -> str:
        """Over the shards' names: their bytes would have to be fetched twice."""
        return hash_of(name.encode() for name in self.names)

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Of the first readable image alone; the others are compared with it when they are read."""
        for name in self.names:
            for item in self.items(Part(name)):
                try:
                    if item.image is not None:
                        return {read_shape(item.image): item.where}
                except UnreadableError:
                    continue
        return {}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """One for each shard."""
        return [Part(name) for name in self.names]

    def items(self, part: Part) -> Iterator[Item]:
        """The samples of one shard."""
        return self.samples(part.name, open_storage(self.uri).read(part.name))

    def samples(self, name: str, data: bytes) -> Iterator[Item]:
        """The samples of the shard `name`, whose bytes are `data`."""
        where = f"{self.uri}/{name}"
        for key, members in read_samples(data, where):
            if key.startswith("/") or ".." in key.split("/"):  # Not to be handed on to whoever unpacks our shards.
                raise UserError(f"{where}: sample {key!r} would be unpacked outside its folder; leave it out")
            kind = next((extension for extension in EXTENSIONS if extension in members), None)
            rest = {extension: bytes(content) for extension, content in members.items() if extension != kind}
            yield Item(key, f"{where}, sample {key!r}", members[kind] if kind else None, rest)


def open_shards(uri: str) -> ShardsSource:
    """The shards in a folder or prefix, with the class names of its index if it has one.

    Raises:
        UserError: no shards there, or they are those of an unfinished data set.
    """
    uri = uri.rstrip("/") or "/"
    place = open_storage(uri)
    try:
        names = place.list()
    except OSError as error:
        raise UserError(f"shards:{uri}: {error.strerror or error}; give the folder that holds the shards") from error
    shards = tuple(name for name in names if name.endswith(SHARD_ENDINGS))
    if not shards:
        raise UserError(f"shards:{uri}: no *.tar or *.tar.gz there; give the folder that holds the shards")
    if UNFINISHED_NAME in names:
        raise UserError(f"shards:{uri}: holds an unfinished data set; run the command again that was making it")
    if INDEX_NAME not in names:
        return ShardsSource(uri, shards)
    return ShardsSource(
        uri, shards, Index.from_json(place.read(INDEX_NAME, INDEX_BYTES), f"{uri}/{INDEX_NAME}").classes
    )


def shuffled_parts(count: int, shard_samples: int | None, image_bytes: int) -> list[Part]:
    """Numbers 0 to count-1 in an order that depends on `count` alone, cut into equal parts.

    Unless told otherwise a shard has at most 4,096 images and 128 MiB of decoded pixels, and there are at
    least eight, so that as many workers can each fetch their own.
    """
    wanted = shard_samples or max(1, min(4096, (128 << 20) // image_bytes, -(-count // 8)))
    order = list(range(count))
    random.Random(ORDER_SEED).shuffle(order)
    number = -(-count // wanted)
    edges = [count * part // number for part in range(number + 1)]
    return [Part(f"shard-{part:06d}", start, order[start:end]) for part, (start, end) in enumerate(pairwise(edges))]


def key_of(part: Part, place: int) -> str:
    """The key of the sample at this place of a part."""
    return f"{part.first + place:08d}"


def hash_of(parts: Iterable[bytes]) -> str:
    """A short hash over all of them."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]
