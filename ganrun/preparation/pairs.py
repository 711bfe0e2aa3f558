"""Sources of paired pictures: two folders whose files have the same names, or pictures that stand side by side.

One picture of a pair is the field `image`, the other a further picture of the sample.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import Pixels, Stored, UnreadableError, decode
from ganrun.preparation.folder import FolderSource, open_folder
from ganrun.preparation.sources import IMAGE, ORDER_SEED, Item, Part, Remarks, Shapes, hash_of

DEFAULT_NAMES = (IMAGE, "source")


@dataclass(frozen=True)
class PairsSource:
    """Pictures of two folders, paired by name.

    Attributes:
        images: folder of the field `image`, with labels and further members.
        partners: the other folder; its pictures are in the same order.
        field: field of its pictures.
        remarks: what is left out of both folders.
    """

    images: FolderSource
    partners: FolderSource
    field: str
    remarks: Remarks
    name: str = "pairs"
    size: int | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the images."""
        return self.images.classes

    def identity(self) -> str:
        """Return a hash of both folders."""
        parts = (self.images.identity(), self.partners.identity(), self.field, repr(self.remarks))
        return hash_of(part.encode() for part in parts)

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Read the headers of all pictures."""
        return {source: folder.shapes(workers)[IMAGE] for source, folder in self._folders()}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the pairs over shards."""
        return self.images.parts(shard_samples, 2 * image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the pairs of a part."""
        partners = self.partners.pictures([self.partners.paths[number] for number in part.numbers])
        for item, partner in zip(self.images.items(part), partners, strict=True):
            yield replace(item, pictures={self.field: partner})

    def _folders(self) -> Iterator[tuple[str, FolderSource]]:
        yield from ((IMAGE, self.images), (self.field, self.partners))


def open_pairs(
    path: str, names: tuple[str, ...], fields: Path | None, limit: int | None, embedded: bool = False
) -> PairsSource:
    """Pair the images of two folders by their relative paths without endings.

    Args:
        path: both folders, with a comma between them.
        names: fields of the pictures in the two folders; one is `image`.
        fields: file of further fields of the images, see `read_fields`.
        limit: number of pairs to take, at random; None: all.
        embedded: captions are embedded, see `open_folder`.

    Raises:
        UserError: no such folders, no pairs, or `fields` does not match the images.
    """
    places = [place for place in path.split(",") if place]
    if len(places) != 2 or len(names) != 2:
        raise UserError(f"pairs:{path}: must be two folders with a comma between them, and --names two fields")
    at = names.index(IMAGE)
    images, partners = open_folder(places[at], fields, None, embedded), open_folder(places[1 - at], None, None)
    pairs, alone = _pair(images, partners)
    if not pairs:
        raise UserError(
            f"pairs:{path}: no pair; a pair has the same name in both folders, apart from the ending; {alone[0]}"
        )
    if limit:
        pairs = sorted(random.Random(ORDER_SEED).sample(pairs, min(limit, len(pairs))))
    remarks = Remarks(
        (*images.remarks.unread, *partners.remarks.unread, *alone),
        (*images.remarks.left_out, *partners.remarks.left_out),
        images.remarks.numbering,
    )
    return PairsSource(
        replace(images, paths=[image for image, _ in pairs]),
        replace(partners, paths=[partner for _, partner in pairs]),
        names[1 - at],
        remarks,
    )


def _pair(images: FolderSource, partners: FolderSource) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the pairs of paths, and a line for each file that is in none."""
    ours, theirs = _by_stem(images), _by_stem(partners)
    pairs, alone = [], []
    for stem in sorted(ours.keys() | theirs.keys()):
        if len(ours[stem]) == len(theirs[stem]) == 1:
            pairs.append((ours[stem][0], theirs[stem][0]))
            continue
        for mine, root, others, other_root in (
            (ours[stem], images.root, theirs[stem], partners.root),
            (theirs[stem], partners.root, ours[stem], images.root),
        ):
            fault = f"no partner in {other_root}"
            if len(mine) > 1 or len(others) > 1:
                fault = (
                    f"ambiguous: {len(mine)} files here and {len(others)} in {other_root} have this name apart from "
                    "the ending; keep one in each folder"
                )
            alone += [escaped(f"{root}/{path}: {fault}") for path in mine]
    return pairs, alone


def _by_stem(folder: FolderSource) -> defaultdict[str, list[str]]:
    found = defaultdict(list)
    for path in folder.paths:
        found[PurePosixPath(path).with_suffix("").as_posix()].append(path)
    return found


@dataclass(frozen=True)
class SideBySideSource:
    """Pictures whose left and right halves are a pair.

    Attributes:
        folder: the pictures.
        names: fields of the left and the right half; one is `image`.
    """

    folder: FolderSource
    names: tuple[str, ...]
    name: str = "side-by-side"
    size: int | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the folder."""
        return self.folder.classes

    @property
    def remarks(self) -> Remarks:
        """Files of the folder that are left out."""
        return self.folder.remarks

    def identity(self) -> str:
        """Return a hash of the folder and the fields."""
        return hash_of(part.encode() for part in (self.folder.identity(), *self.names))

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Return the shapes of the halves."""
        whole = self.folder.shapes(workers)[IMAGE]
        halves = {(width // 2, height, channels): where for (width, height, channels), where in whole.items()}
        return {IMAGE: halves, **{name: halves for name in self.names if name != IMAGE}}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the pictures over shards."""
        return self.folder.parts(shard_samples, 2 * image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the pairs of a part."""
        for item in self.folder.items(part):
            try:
                assert item.image is not None
                halves = dict(zip(self.names, _halves(item.image), strict=True))
            except UnreadableError as error:
                yield replace(item, image=None, fault=str(error))
            else:
                yield replace(item, image=halves.pop(IMAGE), pictures=halves)


def open_side_by_side(
    path: str, names: tuple[str, ...], fields: Path | None, limit: int | None, embedded: bool = False
) -> SideBySideSource:
    """Find the pictures below a folder or prefix, as `open_folder` does.

    Args:
        path: the folder.
        names: fields of the left and the right half; one is `image`.
        fields: file of further fields of the pictures, see `read_fields`.
        limit: number of pictures to take, at random; None: all.
        embedded: captions are embedded, see `open_folder`.

    Raises:
        UserError: see `open_folder`; or `names` are not two.
    """
    if len(names) != 2:
        raise UserError(f"--names {','.join(names)}: name two fields, of the left and of the right half")
    return SideBySideSource(open_folder(path, fields, limit, embedded), names)


def _halves(stored: Stored) -> tuple[Pixels, Pixels]:
    """Return the left and the right half of a picture, uint8 [H, W / 2] or [H, W / 2, 3].

    Raises:
        UnreadableError: it cannot be decoded, or has an odd width.
    """
    pixels = np.asarray(decode(stored))
    width = pixels.shape[1]
    if width % 2:
        raise UnreadableError(f"{width} pixels wide, an odd number, so it is not two pictures of the same width")
    return pixels[:, : width // 2].copy(), pixels[:, width // 2 :].copy()
