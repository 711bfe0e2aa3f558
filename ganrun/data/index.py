"""`index.json` of a prepared data set: its shards with their counts, sizes and hashes."""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ganrun.data.held_out import WHOLE, Part
from ganrun.data.index_fields import EmbeddingField as EmbeddingField
from ganrun.data.index_fields import PictureField as PictureField
from ganrun.data.index_fields import check_shape, embedding_of
from ganrun.data.shard_uris import COMPUTED, expand, package_folder
from ganrun.errors import UserError, escaped
from ganrun.storage import INDEX_BYTES, PATIENCE_SECONDS, Storage, open_storage

FORMAT = 1
INDEX_NAME = "index.json"
SHARD_SAMPLES = 2**24
"""Most samples in a shard. An order of so many takes 128 MiB."""


@dataclass(frozen=True)
class Shard:
    """Entry of one shard; `name` is relative to the index, `sha256` is that of the whole file."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """Content of `index.json`.

    Attributes:
        image_size: size of the field `image` in pixels a side.
        channels: its channels.
        classes: class names by label.
        shards: the shards in order.
        made: how the data set was made, for people.
        pictures: further pictures of a sample by field: NAME is the member KEY.NAME.png (.jpg, .jpeg, .webp).
        embedding: embeddings of the captions; None: there are none.
        stored_size: size of the images in the shards, out of which the centre of `image_size` is read; None: the same.
            No part of the file: `cropped` sets it.
    """

    image_size: int
    channels: int
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    made: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, PictureField] = field(default_factory=dict)
    embedding: EmbeddingField | None = None
    stored_size: int | None = None

    def cropped(self, size: int) -> "Index":
        """Return the index of the same data, read with a centre crop of `size` pixels a side."""
        stored = self.stored_size or self.image_size
        pictures = {
            name: replace(shape, size=size) if shape.size == stored else shape for name, shape in self.pictures.items()
        }
        return replace(self, image_size=size, pictures=pictures, stored_size=stored)

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """Hash that is equal for data sets with the same samples in the same order, wherever they are stored."""
        content = ",".join(f"{shard.samples}:{shard.sha256}" for shard in self.shards)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What checkpoints record: the fingerprint, and the encoder of the captions, which a user's sentence needs."""
        embedding = {"embedding": asdict(self.embedding)} if self.embedding else {}
        return {"data": self.fingerprint, **embedding}

    def to_json(self) -> bytes:
        """Return the bytes of `index.json`; equal indexes have equal bytes."""
        fields = asdict(self)
        del fields["stored_size"]
        if not self.pictures:
            del fields["pictures"]  # ganrun 0.2 reads an index without this key.
        if self.embedding is None:
            del fields["embedding"]
        return (json.dumps({"format": FORMAT, **fields}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Index":
        """Parse `index.json`.

        Raises:
            UserError: the content is not an index of this format; the message begins with `where`.
        """
        try:
            fields = json.loads(data)
            if fields.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
            classes = tuple(fields.pop("classes"))
            pictures = {name: PictureField(**shape) for name, shape in fields.pop("pictures", {}).items()}
            embedding = embedding_of(fields.pop("embedding", None))
            index = cls(
                shards=shards, classes=classes, pictures=pictures, embedding=embedding, stored_size=None, **fields
            )
            for shard in shards:
                _check_plain(shard)
            for name, shape in pictures.items():
                check_shape(name, shape)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{where}: not a valid index ({error}); make it with ganrun prepare") from error
        if not index.samples:
            raise UserError(f"{where}: the data set has no samples; make it again with ganrun prepare")
        return index


def is_plain(name: str) -> bool:
    """Return True if a shard may have this name: below its folder, without control characters, UTF-8."""
    return not name.startswith("/") and ".." not in name.split("/") and escaped(name) == name


def _check_plain(shard: Shard) -> None:
    """Refuse names that lead out of the folder and impossible sizes: an index may come from anybody."""
    if not is_plain(shard.name):
        raise ValueError(f"{shard.name!r} is not a valid shard name")
    if not (type(shard.samples) is type(shard.bytes) is int and 0 <= shard.samples <= SHARD_SAMPLES):
        raise ValueError(f"{shard.name} with {shard.samples!r} samples in {shard.bytes!r} bytes")


@dataclass(frozen=True)
class DataSet:
    """Index and the storage of each of its shards.

    Attributes:
        index: index of all samples.
        places: storage of each shard.
        part: the samples that are read.
        held_out_by: setting that keeps these samples out of training, for the provenance of scores; None: none does.
        mirror: True if each sample of the part is followed by its mirror image.
        held_out_of: what a run trains on that is scored on these samples, without mirror images; None: unknown.
    """

    index: Index
    places: tuple[Storage, ...]
    part: Part = WHOLE
    held_out_by: str | None = None
    mirror: bool = False
    held_out_of: "DataSet | None" = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples of the part in each shard, with mirror images."""
        return tuple(self.part.size(shard.samples) * (1 + self.mirror) for shard in self.index.shards)

    @property
    def samples(self) -> int:
        """Number of samples of the part in all shards."""
        return sum(self.sizes)

    @property
    def whole(self) -> "DataSet":
        """The data set with all samples, without mirror images."""
        return replace(self, part=WHOLE, held_out_by=None, mirror=False, held_out_of=None)

    def trained_on(self, held_out_share: float, mirror: bool = False) -> "DataSet":
        """Return the part that is not held out, with the mirror images of this part alone if `mirror` is True."""
        return replace(self, part=Part(held_out_share), mirror=mirror)

    def where(self, shard: int) -> str:
        """Return the address of a shard, for messages."""
        return f"{self.places[shard].uri}/{self.index.shards[shard].name}"

    def read(self, shard: int) -> bytes:
        """Return all bytes of a shard, as stored.

        Raises:
            TooLargeError: the shard is larger than its index says.
            OSError: the storage cannot read it.
        """
        return self.places[shard].read(self.index.shards[shard].name, self.index.shards[shard].bytes)


def open_data(
    shards: str | list[str],
    patience_seconds: float = PATIENCE_SECONDS,
    key: str = "data.shards",
    crop: int | None = None,
) -> DataSet:
    """Open a data set, such as the one that `data.shards` names.

    Args:
        shards: a folder or prefix with an index, `package:NAME`, or shards whose folder has an index: one, a brace
            range, a glob or a list.
        patience_seconds: retry budget of a storage that does not answer.
        key: key of the config, or option, that names the shards, for messages.
        crop: `data.crop`, side in pixels of the centre of the images that is read; None: whole images.

    Raises:
        UserError: no shards or no index there, parts of different image size, channels or classes, or images smaller
            than the crop.
    """
    entries = [shards] if isinstance(shards, str) else shards
    # Once per folder, however many of its shards are named.
    read_index = functools.cache(functools.partial(_read_index, patience_seconds, key))
    parts = [_open_part(uri, read_index, key) for entry in entries for uri in expand(entry, patience_seconds, key)]
    if not parts:
        raise UserError(f"{key}: {shards!r} names no shard")
    shapes = {(part.index.image_size, part.index.channels, part.index.classes) for part in parts}
    if len(shapes) > 1:
        raise UserError(f"{key}: parts of different image size, channels or classes: {sorted(shapes)}")
    first = parts[0].index
    merged = Index(
        image_size=first.image_size,
        channels=first.channels,
        classes=first.classes,
        shards=tuple(shard for part in parts for shard in part.index.shards),
        made=first.made,
        pictures={
            name: shape
            for name, shape in first.pictures.items()
            if all(part.index.pictures.get(name) == shape for part in parts)
        },
        embedding=_merged_embedding([part.index.embedding for part in parts], key),
    )
    if crop and crop > merged.image_size:
        raise UserError(
            f"data.crop: {crop}, but the images of {key} {shards!r} have {merged.image_size} pixels a side; set at "
            f"most {merged.image_size}, or make the data set again with ganrun prepare --size"
        )
    merged = merged.cropped(crop) if crop else merged
    return DataSet(merged, tuple(place for part in parts for place in part.places))


def _merged_embedding(parts: list[EmbeddingField | None], key: str) -> EmbeddingField | None:
    found = [part for part in parts if part is not None]
    if len({(part.sha256, part.size) for part in found}) > 1 or 0 < len(found) < len(parts):
        raise UserError(f"{key}: parts whose captions are embedded by different encoders, or not; embed all by one")
    return replace(found[0], captions=max(part.captions for part in found)) if found else None


def _open_part(uri: str, read_index: Callable[[str], DataSet], key: str) -> DataSet:
    """Open a folder with an index, or one shard with its index beside it."""
    if uri.startswith("package:"):
        return read_index(uri if uri == COMPUTED else package_folder(uri, key))
    if not uri.endswith((".tar", ".tar.gz")) or os.path.isdir(uri.removeprefix("file://")):
        return read_index(uri.rstrip("/"))
    folder, _, name = uri.rpartition("/")
    whole = read_index(folder or ".")
    found = [number for number, shard in enumerate(whole.index.shards) if shard.name == name]
    if not found:
        where = f"{folder or '.'}/{INDEX_NAME}"
        raise UserError(f"{key}: {uri!r} is not in {where}; run: ganrun prepare shards:{folder}")
    shard = whole.index.shards[found[0]]
    return DataSet(replace(whole.index, shards=(shard,)), (whole.places[found[0]],))


def _open_place(uri: str, patience_seconds: float) -> Storage:
    if uri != COMPUTED:
        return open_storage(uri, patience_seconds)
    from ganrun.data.moving_fashion import MovingFashion  # With numpy and Pillow, which other data does without here.

    return MovingFashion()


def _read_index(patience_seconds: float, key: str, uri: str) -> DataSet:
    place = _open_place(uri, patience_seconds)
    try:
        data = place.read(INDEX_NAME, INDEX_BYTES)
    except FileNotFoundError:
        shards = [name for name in place.list() if name.endswith((".tar", ".tar.gz"))]
        what = f"{len(shards)} shards but no {INDEX_NAME}" if shards else "no shards and no index, or is not there"
        raise UserError(
            f"{key}: {uri!r} holds {what}; "
            + (f"index them: ganrun prepare shards:{uri}" if shards else "make shards: ganrun prepare --help")
        ) from None
    except OSError as error:
        raise UserError(f"{key}: cannot read {uri}/{INDEX_NAME}: {error.strerror or error}") from error
    index = Index.from_json(data, f"{uri}/{INDEX_NAME}")
    return DataSet(index, (place,) * len(index.shards))
