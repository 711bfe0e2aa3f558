"""Finds the images below a folder or prefix, and accounts for every other file there.

An image is a regular file with an ending of Pillow's, or one with another ending, or none, whose content Pillow
recognises. Hidden files and folders are ignored.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import is_image, readable_endings
from ganrun.storage import INDEX_BYTES, open_storage

AHEAD = 32
"""Concurrent downloads from a bucket."""
# fmt: off
UNREADABLE_ENDINGS = frozenset((
    ".heic", ".heif", ".avif", ".jxl", ".jxr", ".svg", ".eps", ".ai", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".nrw",
    ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",
))
"""Endings of images that Pillow does not read, or not on every machine."""
OTHER_ENDINGS = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".log", ".py", ".ipynb",
    ".npy", ".npz", ".pt", ".pth", ".safetensors", ".mat", ".db", ".parquet", ".zip", ".tar", ".gz", ".tgz", ".zst",
    ".7z", ".rar", ".pdf", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav",
))
"""Endings of files that are no images. They are not opened."""
# fmt: on
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


@dataclass
class Found:
    """Files below a folder.

    Attributes:
        images: sorted paths of the images.
        unread: reason why it is not read, by path, of everything that is or looks like an image and cannot be read.
        others: paths of the files that are no images.
    """

    images: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def left_out(self) -> tuple[str, ...]:
        """Return a line for each ending among the files that are no images, the most frequent first."""
        return count_endings(self.others)


def count_endings(names: list[str]) -> tuple[str, ...]:
    """Return lines such as `3 .txt (notes.txt, ...)`, the most frequent ending first."""
    names = sorted(map(escaped, names))
    counts = Counter(_ending(name) for name in names)
    firsts = {_ending(name): name for name in reversed(names)}
    return tuple(
        f"{number:,} {ending or 'without ending'} ({firsts[ending]}{', ...' if number > 1 else ''})"
        for ending, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def find_images(root: str) -> Found:
    """Find the images below a folder or `s3://BUCKET/PREFIX`.

    Raises:
        UserError: a folder cannot be listed.
    """
    found, unknown = Found(), []
    for path in _objects(root) if root.startswith("s3://") else _files(root, found.unread):
        ending = _ending(path)
        if ending in readable_endings():
            found.images.append(path)
        elif ending in OTHER_ENDINGS:
            found.others.append(path)
        else:
            unknown.append(path)
    for path, readable in zip(unknown, _recognised(root, unknown), strict=True):
        if readable:
            found.images.append(path)
        elif _ending(path) in UNREADABLE_ENDINGS:
            found.unread[path] = f"Pillow does not read {_ending(path)} here; convert it to .png or .jpg"
        else:
            found.others.append(path)
    found.images.sort()
    found.unread = dict(sorted(found.unread.items()))
    return found


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _objects(root: str) -> Iterator[str]:
    for name in open_storage(root).objects():
        if not any(part.startswith(".") for part in name.split("/")):
            yield name


def _recognised(root: str, paths: list[str]) -> Iterator[bool]:
    """Yield for each path whether Pillow recognises its content."""
    if not root.startswith("s3://"):
        yield from (is_image(Path(root, path)) for path in paths)
        return
    storage = open_storage(root)

    def recognise(path: str) -> bool:
        try:
            return is_image(storage.read(path, INDEX_BYTES))
        except OSError:
            return False

    with ThreadPoolExecutor(AHEAD) as pool:
        for start in range(0, len(paths), AHEAD):
            yield from pool.map(recognise, paths[start : start + AHEAD])


def _files(root: str, unread: dict[str, str]) -> Iterator[str]:
    """Yield regular files below a folder, with `/` between folders. Follow links, each folder once.

    Args:
        root: the folder.
        unread: reason by path for what is neither a file nor a folder; updated in place.

    Raises:
        UserError: a folder cannot be listed.
    """
    pending, seen = [""], {os.path.realpath(root)}
    while pending:
        folder = pending.pop()
        for entry in _entries(Path(root, folder)):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == "file":
                yield path
            elif kind != "folder":
                unread[path] = kind
            elif (real := os.path.realpath(entry.path)) not in seen:
                seen.add(real)
                pending.append(path)
                if _ending(path) in readable_endings() and not _entries(Path(entry.path)):
                    unread[path] = "a folder, not a file"
            elif not Path(os.path.realpath(Path(root, folder))).is_relative_to(real):  # Not a loop.
                unread[path] = f"a link to {real}, whose images are taken already"


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}; its images would be left out") from error


def _kind(entry: "os.DirEntry[str]") -> str:
    """Return "file", "folder", or what it is instead. Only links and rare kinds cost a stat."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
        mode = entry.stat().st_mode
    except OSError as error:
        return f"a link that leads nowhere ({error.strerror})"
    return next((f"{name}, not a file" for test, name in _KINDS if test(mode)), "not a regular file")
