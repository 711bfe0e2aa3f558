"""Where images come from: a folder, arrays in memory, or shards that exist already."""

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from ganrun.data.index import INDEX_NAME, Index
from ganrun.data.shard import read_samples
from ganrun.errors import UserError
from ganrun.preparation.convert import EXTENSIONS, Pixels, Stored, UnreadableError, look
from ganrun.preparation.fields import Members, Rows, read_fields, to_members
from ganrun.preparation.pool import spread
from ganrun.storage import open_storage

SHARD_ENDINGS = (".tar", ".tar.gz")
UNFINISHED_NAME = "unfinished.json"
"""Stands in a data set that is being made, until its index does."""
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_ORDER_SEED = 0

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
class FolderSource:
    """Image files below `root`; `paths` are relative to it."""

    name: str
    root: Path
    paths: list[str]
    members: dict[str, Members]
    classes: tuple[str, ...] = ()
    size: int | None = None

    def identity(self) -> str:
        """Over paths, file sizes and members."""
        entries = ((path, (self.root / path).stat().st_size, self.members.get(path, {})) for path in self.paths)
        return hashed(repr(entry).encode() for entry in entries)

    def shapes(self, workers: int) -> dict[Shape, str]:
        """By the header of every file, so that a misfit among a million is known at once."""
        found: dict[Shape, str] = {}
        edges = [*range(0, len(self.paths), 4096), len(self.paths)]
        chunks = [self.paths[start:end] for start, end in pairwise(edges)]
        for shapes in spread(self._shapes, chunks, workers):
            found = shapes | found
        return found

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffled, so that no shard is all of one class."""
        return shuffled_parts(len(self.paths), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Files are opened by whoever converts them."""
        for place, number in enumerate(part.numbers):
            path = self.paths[number]
            yield Item(shard_key(part, place), str(self.root / path), self.root / path, self.members.get(path, {}))

    def _shapes(self, paths: Sequence[str]) -> dict[Shape, str]:
        found: dict[Shape, str] = {}
        for path in paths:
            try:
                found.setdefault(look(self.root / path), str(self.root / path))
            except UnreadableError:
                continue  # reported when it is packed
        return found


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
        return hashed([self.images.tobytes(), repr([int(label) for label in self.labels]).encode()])

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
            yield Item(shard_key(part, place), f"{self.name}, image {number}", self.images[number], {"cls": label})


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
        return hashed(name.encode() for name in self.names)

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Of the first readable image alone; the others are compared with it when they are read."""
        for name in self.names:
            for item in self.items(Part(name)):
                try:
                    if item.image is not None:
                        return {look(item.image): item.where}
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
            kind = next((extension for extension in EXTENSIONS if extension in members), None)
            rest = {extension: bytes(content) for extension, content in members.items() if extension != kind}
            yield Item(key, f"{where}, sample {key!r}", members[kind] if kind else None, rest)


def open_folder(path: str, fields: Path | None, limit: int | None) -> FolderSource:
    """The images below a folder. Its sub-folders are classes if every image is in one and there are at
    least two; a field `label` in the file `fields` comes before them. `limit` takes that many by lot.

    Raises:
        UserError: no folder, no images, or `fields` does not fit them.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"folder:{path}: no such folder")
    paths = find_images(root)
    if not paths:
        raise UserError(f"folder:{path}: no images in it; read are {' '.join(_IMAGE_ENDINGS)}")
    tops = sorted({path.split("/")[0] for path in paths if "/" in path})
    classes = tuple(tops) if len(tops) > 1 and all("/" in path for path in paths) else ()
    shared = {name: {"cls": str(number).encode()} for number, name in enumerate(classes)}
    members: dict[str, Members] = {path: shared[path.split("/")[0]] for path in paths} if classes else {}
    if fields:
        named, further = to_members(_fit(read_fields(fields), paths, fields, path))
        classes = named or classes
        members = {path: {**members.get(path, {}), **further[path]} for path in paths}
    if limit:
        paths = sorted(random.Random(_ORDER_SEED).sample(paths, min(limit, len(paths))))
        members = {path: members[path] for path in paths} if members else {}
    return FolderSource("folder", root, paths, members, classes)


def find_images(root: Path) -> list[str]:
    """Paths below `root` of what is called an image, sorted; hidden files and folders are left out."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        names = (name for name in files if name.lower().endswith(_IMAGE_ENDINGS) and not name.startswith("."))
        found += [(below / name).as_posix() for name in names]
    return sorted(found)


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
    return ShardsSource(uri, shards, Index.from_json(place.read(INDEX_NAME), f"{uri}/{INDEX_NAME}").classes)


def _fit(rows: Rows, paths: list[str], file: Path, folder: str) -> Rows:
    """The rows, if each names an image and each image has one."""
    if missing := sorted(rows.keys() - set(paths)):
        raise UserError(
            f"--fields {file}: {missing[0]!r} is no image in {folder} ({len(missing)} such rows); "
            "paths are relative to that folder"
        )
    if bare := [path for path in paths if path not in rows]:
        raise UserError(
            f"--fields {file}: no row for {bare[0]!r} ({len(bare)} such images in {folder}); give each image a row"
        )
    return rows


def shuffled_parts(count: int, shard_samples: int | None, image_bytes: int) -> list[Part]:
    """Numbers 0 to count-1 in an order that depends on `count` alone, cut into equal parts.

    Unless told otherwise a shard has at most 4,096 images and 128 MiB of decoded pixels, and there are at
    least eight, so that as many workers can each fetch their own.
    """
    wanted = shard_samples or max(1, min(4096, (128 << 20) // image_bytes, -(-count // 8)))
    order = list(range(count))
    random.Random(_ORDER_SEED).shuffle(order)
    number = -(-count // wanted)
    edges = [count * part // number for part in range(number + 1)]
    return [Part(f"shard-{part:06d}", start, order[start:end]) for part, (start, end) in enumerate(pairwise(edges))]


def shard_key(part: Part, place: int) -> str:
    """The key of the sample that comes at this place of a part."""
    return f"{part.first + place:08d}"


def hashed(parts: Iterable[bytes]) -> str:
    """The identity of what these bytes are."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]
