"""Source of patches: square parts of the pictures of a folder, of which the most textured are kept.

Pictures are cut without overlap; what does not fill a patch is left at the edges. Texture is the gradient energy of a
patch: the mean squared difference of neighbouring pixels, of grey levels from 0 to 255. One share of the patches of all
pictures together is kept, so that a picture of the sky gives few and one of a forest many.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganrun.errors import UserError, counted
from ganrun.preparation.convert_image import FILTERS, Pixels, Stored, UnreadableError, decode
from ganrun.preparation.folder import FolderSource
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import Item, Part, Remarks, Shapes, hash_of, key_of, shuffled_parts

T = TypeVar("T", bound=np.generic)
Energies = NDArray[np.float64]

CHUNK = 8
"""Pictures that a process measures at a time."""


class Cut(NamedTuple):
    """How pictures are cut: patches of `size` pixels a side, of pictures at 1 / `shrink` of their size."""

    size: int
    shrink: int
    filter: str


@dataclass(frozen=True)
class PatchSource:
    """Patches of the pictures of a folder. All patches of a picture are in one shard, so that it is decoded once.

    Attributes:
        folder: the pictures.
        cut: how they are cut.
        share: share of all patches that is kept.
        kept: numbers of the patches that are kept of each picture, ascending, by its place in `folder.paths`.
        found: number of all patches.
        remarks: what is left out.
    """

    folder: FolderSource
    cut: Cut
    share: float
    kept: tuple[tuple[int, ...], ...]
    found: int
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def name(self) -> str:
        """Name in messages and in the index."""
        return self.folder.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the pictures."""
        return self.folder.classes

    @property
    def size(self) -> int:
        """Size of the patches in pixels."""
        return self.cut.size

    @property
    def made(self) -> dict[str, Any]:
        """What the index records of the cut."""
        shrink, filter = self.cut.shrink, self.cut.filter
        return {
            "resize": f"to 1/{shrink}, {filter}" if shrink > 1 else "none",
            "patches": {"share": self.share, "by": "gradient energy", "of": self.found},
        }

    def identity(self) -> str:
        """Return a hash of the pictures and of how they are cut."""
        return hash_of([self.folder.identity().encode(), repr((self.cut, self.share)).encode()])

    def old_identity(self) -> None:
        """Return None: older ganrun cut no patches."""

    def shapes(self, workers: int) -> Shapes:
        """Return the shapes of the pictures, of which the channels count."""
        return self.folder.shapes(workers)

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the pictures over shards. Shards have about as many patches as they would have images."""
        patches = sum(map(len, self.kept))
        shards = len(shuffled_parts(patches, shard_samples, image_bytes))
        pictures = [number for number, kept in enumerate(self.kept) if kept]
        parts = shuffled_parts(len(pictures), max(1, -(-len(pictures) // shards)), image_bytes)
        placed = [replace(part, numbers=[pictures[number] for number in part.numbers]) for part in parts]
        edges = np.cumsum([0, *(sum(len(self.kept[number]) for number in part.numbers) for part in placed)])
        return [replace(part, first=int(first)) for part, first in zip(placed, edges, strict=False)]

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the kept patches of the pictures of a part."""
        paths, place = [self.folder.paths[number] for number in part.numbers], 0
        for number, path, stored in zip(part.numbers, paths, self.folder.pictures(paths), strict=True):
            where, pixels = f"{self.folder.root}/{path}", shrunk(stored, self.cut)
            for patch in self.kept[number]:
                members = self.folder.members.get(path, {})
                yield Item(
                    key_of(part, place), f"{where}, patch {patch}", _patches(pixels, self.cut.size)[patch], members
                )
                place += 1


def with_options(pictures: FolderSource, options: argparse.Namespace) -> "FolderSource | PatchSource":
    """Return the pictures of a folder, or of `--patches` their patches."""
    if not options.patches:
        return pictures
    return open_patches(
        pictures, Cut(options.size, options.shrink or 1, options.filter), options.patches, options.workers
    )


def open_patches(folder: FolderSource, cut: Cut, share: float, workers: int) -> PatchSource:
    """Measure the patches of all pictures of a folder and keep the most textured ones.

    Args:
        folder: the pictures.
        cut: how they are cut.
        share: share of all patches to keep, above 0, at most 1.
        workers: number of processes.

    Raises:
        UserError: no picture is large enough for a patch.
    """
    edges = [*range(0, len(folder.paths), CHUNK), len(folder.paths)]
    measure = _Measure(folder, cut)
    chunks = parallel_map(measure, list(pairwise(edges)), workers)
    measured = [each for chunk in chunks for each in chunk]
    energies = [np.zeros(0) if isinstance(each, str) else each for each in measured]
    unread = tuple(
        f"{folder.root}/{path}: {each}"
        for path, each in zip(folder.paths, measured, strict=True)
        if isinstance(each, str)
    )
    small = sum(not isinstance(each, str) and not len(each) for each in measured)
    every = np.concatenate(energies)
    if not len(every):
        raise UserError(
            f"folder:{folder.root}: no picture is as large as a patch of {cut.size * cut.shrink} pixels a side"
            + (f"; the first fault: {unread[0]}" if unread else "; lower --size")
        )
    kept = _most_textured(energies, max(1, round(share * len(every))))
    left_out = [*folder.remarks.left_out, *([f"{counted(small, 'picture')} smaller than a patch"] if small else [])]
    remarks = replace(folder.remarks, unread=(*folder.remarks.unread, *unread), left_out=tuple(left_out))
    return PatchSource(folder, cut, share, kept, len(every), remarks)


def _most_textured(energies: list[Energies], count: int) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the patches that are kept of each picture, `count` of all; of equal ones the first."""
    order = np.argsort(-np.concatenate(energies), kind="stable")
    chosen = np.zeros(len(order), bool)
    chosen[order[:count]] = True
    pictures = np.split(chosen, np.cumsum([len(each) for each in energies])[:-1])
    return tuple(tuple(np.flatnonzero(each).tolist()) for each in pictures)


@dataclass(frozen=True)
class _Measure:
    """Gradient energies of the patches of pictures, or why one cannot be read. Pickled to worker processes."""

    folder: FolderSource
    cut: Cut

    def __call__(self, numbers: tuple[int, int]) -> list[Energies | str]:
        paths = self.folder.paths[slice(*numbers)]
        return [self._of(stored) for stored in self.folder.pictures(paths)]

    def _of(self, stored: Stored) -> Energies | str:
        try:
            return gradient_energies(shrunk(stored, self.cut), self.cut.size)
        except UnreadableError as error:
            return str(error)


def shrunk(stored: Stored, cut: Cut) -> Pixels:
    """Return the pixels of a picture at 1 / `cut.shrink` of its size, uint8 [H, W] or [H, W, 3].

    Raises:
        UnreadableError: it cannot be decoded.
    """
    image = decode(stored)
    if cut.shrink > 1:
        smaller = [max(1, side // cut.shrink) for side in image.size]
        image = image.resize((smaller[0], smaller[1]), FILTERS[cut.filter])
    return np.asarray(image)


def gradient_energies(pixels: Pixels, size: int) -> Energies:
    """Return the gradient energy of each patch of a picture, float64 [patches], in the order of `_patches`."""
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    patches = _patches(grey, size)
    down, across = (np.square(np.diff(patches, axis=axis)).mean((1, 2)) for axis in (1, 2))
    energies: Energies = down + across
    return energies


def _patches(pixels: NDArray[T], size: int) -> NDArray[T]:
    """Return the patches of a picture [H, W, ...], row by row, [patches, size, size, ...]."""
    rows, columns = (side // size for side in pixels.shape[:2])
    top, left = ((side % size) // 2 for side in pixels.shape[:2])
    inside = pixels[top : top + rows * size, left : left + columns * size]
    cells = inside.reshape(rows, size, columns, size, *pixels.shape[2:]).swapaxes(1, 2)
    return cells.reshape(-1, size, size, *pixels.shape[2:])
