"""Source of images in a folder, or below a prefix in a bucket."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import Stored, UnreadableError, read_shape
from ganrun.preparation.fields import Members, Rows, read_fields, to_members
from ganrun.preparation.find_images import AHEAD, Found, find_images
from ganrun.preparation.labels import in_order
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import (
    IMAGE,
    NO_REMARKS,
    ORDER_SEED,
    Item,
    Part,
    Remarks,
    Shape,
    Shapes,
    hash_of,
    key_of,
    shuffled_parts,
    versions,
)
from ganrun.storage import expand_user, open_storage


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
        remarks: what is left out, and how labels are numbered.
    """

    name: str
    root: str
    paths: list[str]
    members: dict[str, Members]
    classes: tuple[str, ...] = ()
    size: int | None = None
    remarks: Remarks = NO_REMARKS

    def identity(self) -> str:
        """Return a hash of paths, sizes and times of the files, members, class names and what is left out."""
        entries = (
            (path, version, self.members.get(path, {}))
            for path, version in zip(self.paths, versions(self.root, self.paths), strict=True)
        )
        return hash_of(repr(entry).encode() for entry in (self.classes, self.remarks, *entries))

    def old_identity(self) -> str:
        """Return a hash of paths, sizes and members."""
        sizes = (size for size, _ in versions(self.root, self.paths))
        entries = ((path, size, self.members.get(path, {})) for path, size in zip(self.paths, sizes, strict=True))
        return hash_of(repr(entry).encode() for entry in entries)

    def shapes(self, workers: int) -> Shapes:
        """Read the header of every file, so that one image of another size fails before packing starts."""
        found: dict[Shape, str] = {}
        edges = [*range(0, len(self.paths), 4096), len(self.paths)]
        chunks = [self.paths[start:end] for start, end in pairwise(edges)]
        for shapes in parallel_map(self._shapes, chunks, workers):
            found = shapes | found
        return {IMAGE: found}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the images over shards, so that no shard has one class only."""
        return shuffled_parts(len(self.paths), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the samples of a part. Local files are passed as paths and opened by the converter."""
        paths = [self.paths[number] for number in part.numbers]
        for place, (path, picture) in enumerate(zip(paths, self.pictures(paths), strict=True)):
            yield Item(key_of(part, place), escaped(self._where(path)), picture, self.members.get(path, {}))

    def _shapes(self, paths: Sequence[str]) -> dict[Shape, str]:
        found: dict[Shape, str] = {}
        for path, picture in zip(paths, self.pictures(paths), strict=True):
            try:
                found.setdefault(read_shape(picture), escaped(self._where(path)))
            except UnreadableError:
                continue  # reported when it is packed
        return found

    def pictures(self, paths: Sequence[str]) -> Iterator[Stored]:
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


def open_folder(path: str, fields: Path | None, limit: int | None, embedded: bool = False) -> FolderSource:
    """Find the images below a folder or prefix.

    Sub-folders are classes if there are at least two and every image is in one.

    Args:
        path: folder or `s3://BUCKET/PREFIX`.
        fields: file of further fields, see `read_fields`; its `label` overrides sub-folders.
        limit: number of images to take, at random; None: all.
        embedded: captions are embedded, which leaves out and names images without one: `fields` may have no row of
            them.

    Raises:
        UserError: no such folder, no images, or `fields` does not match them.
    """
    root = path.rstrip("/") if _is_bucket(path) else expand_user(path)
    if not _is_bucket(root) and not Path(root).is_dir():
        raise UserError(f"folder:{path}: no such folder")
    found = find_images(root)
    if not found.images:
        raise UserError(f"folder:{path}: no images; {no_images(found)}")
    paths = found.images
    classes, numbering, members = _class_folders(paths)
    if fields:
        named, by, further = to_members(_fit(read_fields(fields), found, fields, path, embedded))
        classes, numbering = (named, by) if named else (classes, numbering)
        members = {path: {**members.get(path, {}), **further.get(path, {})} for path in paths}
    if limit:
        paths = sorted(random.Random(ORDER_SEED).sample(paths, min(limit, len(paths))))
        members = {path: members[path] for path in paths} if members else {}
    unread = tuple(f"{escaped(f'{root}/{name}')}: {reason}" for name, reason in found.unread.items())
    remarks = Remarks(unread, found.left_out(), numbering)
    return FolderSource("folder", root, paths, members, tuple(map(escaped, classes)), remarks=remarks)


def no_images(found: Found) -> str:
    """Return what a folder without images holds instead, for a message."""
    unread = [f"{escaped(name)}: {reason}" for name, reason in found.unread.items()]
    there = "; ".join([*unread[:1], *found.left_out()[:3]]) or "nothing"
    return f"it holds {there}; give a folder of images that Pillow reads, such as .png, .jpg, .webp, .tif"


def _class_folders(paths: list[str]) -> tuple[tuple[str, ...], str, dict[str, Members]]:
    """Return the sub-folders as classes, how they are numbered, and the .cls of each image; empty without classes."""
    tops = {path.split("/")[0] for path in paths if "/" in path}
    if len(tops) < 2 or not all("/" in path for path in paths):
        return (), "", {}
    classes, order = in_order(tops)
    shared = {name: {"cls": str(number).encode()} for number, name in enumerate(classes)}
    return classes, f"sub-folders in {order} order", {path: shared[path.split("/")[0]] for path in paths}


def _is_bucket(place: str) -> bool:
    return place.startswith("s3://")


def _fit(rows: Rows, found: Found, file: Path, folder: str, embedded: bool) -> Rows:
    """Return the rows of the images. Rows of images that cannot be read are dropped: those are listed as skipped.

    Raises:
        UserError: a row without an image, an image without a row unless captions are `embedded`, or no row is left.
    """
    known = found.unread.keys() | set(found.images)
    if strays := {path: path.strip() for path in rows if path not in known and path.strip() not in rows}:
        rows = {strays.get(path, path): row for path, row in rows.items()}  # Spaces beside the commas.
    if missing := sorted(rows.keys() - known):
        raise UserError(
            f"--fields {file}: no image {missing[0]!r} in {folder} ({len(missing)} such rows); "
            "paths must be relative to that folder"
        )
    bare = [path for path in found.images if path not in rows]
    if bare and (not embedded or len(bare) == len(found.images)):
        raise UserError(
            f"--fields {file}: no row for {bare[0]!r} ({len(bare)} such images in {folder}); give each image a row"
        )
    return {path: rows[path] for path in found.images if path in rows}
