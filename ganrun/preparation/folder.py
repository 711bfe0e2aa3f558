"""Source of images in a folder, or below a prefix in a bucket."""

import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ganrun.errors import UserError
from ganrun.preparation.convert_image import Stored, UnreadableError, read_shape
from ganrun.preparation.fields import Members, Rows, read_fields, to_members
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import ORDER_SEED, Item, Part, Shape, hash_of, key_of, shuffled_parts
from ganrun.storage import open_storage

AHEAD = 32
"""Concurrent downloads from a bucket."""
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class FolderSource:
    """Image files below a folder or `s3://BUCKET/PREFIX`.

    Attributes:
        name: name in messages and in the index.
        root: the folder or prefix.
        paths: paths of the images relative to `root`.
        members: further members of samples (cls, txt, json) by path.
        classes: class names by number; empty without labels.
        size: default image size in pixels; None: that of the images.
    """

    name: str
    root: str
    paths: list[str]
    members: dict[str, Members]
    classes: tuple[str, ...] = ()
    size: int | None = None

    def identity(self) -> str:
        """Return a hash of paths, file sizes and members."""
        objects = open_storage(self.root).objects() if _is_bucket(self.root) else {}
        sizes = (objects[path].bytes if objects else os.stat(self._where(path)).st_size for path in self.paths)
        entries = ((path, size, self.members.get(path, {})) for path, size in zip(self.paths, sizes, strict=True))
        return hash_of(repr(entry).encode() for entry in entries)

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Read the header of every file, so that one image of another size fails before packing starts."""
        found: dict[Shape, str] = {}
        edges = [*range(0, len(self.paths), 4096), len(self.paths)]
        chunks = [self.paths[start:end] for start, end in pairwise(edges)]
        for shapes in parallel_map(self._shapes, chunks, workers):
            found = shapes | found
        return found

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the images over shards, so that no shard has one class only."""
        return shuffled_parts(len(self.paths), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the samples of a part. Local files are passed as paths and opened by the converter."""
        paths = [self.paths[number] for number in part.numbers]
        for place, (path, picture) in enumerate(zip(paths, self._pictures(paths), strict=True)):
            yield Item(key_of(part, place), self._where(path), picture, self.members.get(path, {}))

    def _shapes(self, paths: Sequence[str]) -> dict[Shape, str]:
        found: dict[Shape, str] = {}
        for path, picture in zip(paths, self._pictures(paths), strict=True):
            try:
                found.setdefault(read_shape(picture), self._where(path))
            except UnreadableError:
                continue  # reported when it is packed
        return found

    def _pictures(self, paths: Sequence[str]) -> Iterator[Stored]:
        """Yield pictures in order. From a bucket 32 are downloaded at a time, which bounds memory."""
        if not _is_bucket(self.root):
            yield from (Path(self._where(path)) for path in paths)
            return
        storage = open_storage(self.root)
        with ThreadPoolExecutor(AHEAD) as pool:
            for start in range(0, len(paths), AHEAD):
                yield from pool.map(storage.read, paths[start : start + AHEAD])

    def _where(self, path: str) -> str:
        return f"{self.root}/{path}"


def open_folder(path: str, fields: Path | None, limit: int | None) -> FolderSource:
    """Find the images below a folder or prefix.

    Sub-folders are classes if there are at least two and every image is in one.

    Args:
        path: folder or `s3://BUCKET/PREFIX`.
        fields: file of further fields, see `read_fields`; its `label` overrides sub-folders.
        limit: number of images to take, at random; None: all.

    Raises:
        UserError: no such folder, no images, or `fields` does not match them.
    """
    root = path.rstrip("/") if _is_bucket(path) else str(Path(path).expanduser())
    if not _is_bucket(root) and not Path(root).is_dir():
        raise UserError(f"folder:{path}: no such folder")
    paths = find_images(root)
    if not paths:
        raise UserError(f"folder:{path}: no images; supported endings are {' '.join(_ENDINGS)}")
    tops = sorted({path.split("/")[0] for path in paths if "/" in path})
    classes = tuple(tops) if len(tops) > 1 and all("/" in path for path in paths) else ()
    shared = {name: {"cls": str(number).encode()} for number, name in enumerate(classes)}
    members: dict[str, Members] = {path: shared[path.split("/")[0]] for path in paths} if classes else {}
    if fields:
        named, further = to_members(_fit(read_fields(fields), paths, fields, path))
        classes = named or classes
        members = {path: {**members.get(path, {}), **further[path]} for path in paths}
    if limit:
        paths = sorted(random.Random(ORDER_SEED).sample(paths, min(limit, len(paths))))
        members = {path: members[path] for path in paths} if members else {}
    return FolderSource("folder", root, paths, members, classes)


def find_images(root: str) -> list[str]:
    """Return sorted paths of files below `root` with an image ending, without hidden files and folders."""
    names = open_storage(root).objects() if _is_bucket(root) else _walk(Path(root))
    shown = (name for name in names if not any(part.startswith(".") for part in name.split("/")))
    return sorted(name for name in shown if name.lower().endswith(_ENDINGS))


def _walk(root: Path) -> Iterator[str]:
    """Yield files below a folder. Follows symbolic links."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((Path(folder, name)).relative_to(root).as_posix() for name in files)


def _is_bucket(place: str) -> bool:
    return place.startswith("s3://")


def _fit(rows: Rows, paths: list[str], file: Path, folder: str) -> Rows:
    """Return the rows if they match the images one to one.

    Raises:
        UserError: a row without an image, or an image without a row.
    """
    if missing := sorted(rows.keys() - set(paths)):
        raise UserError(
            f"--fields {file}: no image {missing[0]!r} in {folder} ({len(missing)} such rows); "
            "paths must be relative to that folder"
        )
    if bare := [path for path in paths if path not in rows]:
        raise UserError(
            f"--fields {file}: no row for {bare[0]!r} ({len(bare)} such images in {folder}); give each image a row"
        )
    return rows
