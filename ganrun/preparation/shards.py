"""Source of existing WebDataset shards in a folder, or below a prefix in a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass

from ganrun.data.index import INDEX_NAME, Index, is_plain
from ganrun.data.shard import read_samples
from ganrun.data.shard_uris import COMPUTED, package_folder
from ganrun.errors import UserError
from ganrun.preparation.convert_image import EXTENSIONS, UnreadableError, read_shape, readable_endings
from ganrun.preparation.find_images import count_endings
from ganrun.preparation.sources import (
    IMAGE,
    NO_REMARKS,
    UNFINISHED_NAME,
    Item,
    Part,
    Remarks,
    Shapes,
    hash_of,
    image_of,
    versions,
)
from ganrun.storage import INDEX_BYTES, open_storage

SHARD_ENDINGS = (".tar", ".tar.gz")
OWN_FILES = (INDEX_NAME, UNFINISHED_NAME, "preview.png", "skipped.txt", "LICENSE")
"""Files that ganrun writes beside shards, and the licence of what travels with it."""


@dataclass(frozen=True)
class ShardsSource:
    """Existing WebDataset shards in a folder or prefix. Order, keys and all members are kept.

    Attributes:
        extensions: extensions of the image of a sample, tried in this order.
    """

    uri: str
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    name: str = "shards"
    size: int | None = None
    extensions: tuple[str, ...] = EXTENSIONS
    remarks: Remarks = NO_REMARKS

    def identity(self) -> str:
        """Return a hash of names, sizes and times of the shards, and of the classes.

        Hashing their content would download everything twice.
        """
        entries = zip(self.names, versions(self.uri, self.names), strict=True)
        return hash_of(repr(entry).encode() for entry in (self.classes, *entries))

    def old_identity(self) -> None:
        """Return None: older ganrun recorded only the names of the shards."""

    def shapes(self, workers: int) -> Shapes:
        """Return the shape of the first readable image. The others are checked against it during conversion.

        Raises:
            UserError: no image is readable.
        """
        first = "no sample"
        for name in self.names:
            for item in self.items(Part(name)):
                try:
                    return {IMAGE: {read_shape(image_of(item)): item.where}}
                except UnreadableError as error:
                    first = f"{item.where}: {error}" if first == "no sample" else first
        raise UserError(f"shards:{self.uri}: no readable image; the first fault: {first}")

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Return one part per shard."""
        return [Part(name) for name in self.names]

    def items(self, part: Part) -> Iterator[Item]:
        """Read a shard and yield its samples.

        Raises:
            UserError: the shard cannot be read, or see `samples`.
        """
        try:
            data = open_storage(self.uri).read(part.name)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise UserError(f"{self.uri}/{part.name}: {error.strerror or error}; restore or remove it") from error
        return self.samples(part.name, data)

    def samples(self, name: str, data: bytes) -> Iterator[Item]:
        """Yield the samples of shard `name` from its bytes, and at the end the members that belong to none.

        Raises:
            UserError: the shard is corrupt, or a key would be unpacked outside its folder.
        """
        where = f"{self.uri}/{name}"
        outside: list[tuple[str, str]] = []
        for key, members in read_samples(data, where, outside):
            if key.startswith("/") or ".." in key.split("/"):  # Protects users who unpack our shards.
                raise UserError(f"{where}: sample {key!r} would be unpacked outside its folder; remove or rename it")
            kind = next((extension for extension in self.extensions if extension in members), None)
            rest = {extension: bytes(content) for extension, content in members.items() if extension != kind}
            yield Item(key, f"{where}, sample {key!r}", members[kind] if kind else None, rest)
        for name, reason in outside:
            yield Item(name, f"{where}, member {name!r}", None, {}, reason)


def open_shards(uri: str, copied: bool) -> ShardsSource:
    """Find the shards in a folder or prefix. Class names come from the index, if there is one.

    Args:
        uri: folder or prefix, or `package:NAME`.
        copied: True if images are converted, hence may have any format; False if training reads these shards.

    Raises:
        UserError: no shards, a data set that is computed, a name that no index may have, or the data set is unfinished.
    """
    if uri == COMPUTED:
        raise UserError(
            f"shards:{uri}: is computed wherever it is read, so there is nothing to copy; name it in data.shards"
        )
    uri = package_folder(uri, "SOURCE") if uri.startswith("package:") else uri.rstrip("/") or "/"
    place = open_storage(uri)
    try:
        names = place.list()
    except OSError as error:
        raise UserError(f"shards:{uri}: {error.strerror or error}; give the folder that holds the shards") from error
    shards = tuple(name for name in names if name.endswith(SHARD_ENDINGS))
    others = [name for name in names if name not in (*shards, *OWN_FILES)]
    if not shards:
        there = "; ".join(count_endings(others)[:3]) or "nothing"
        raise UserError(
            f"shards:{uri}: no *.tar or *.tar.gz; give the folder that holds the shards, this one holds {there}"
        )
    if UNFINISHED_NAME in names:
        raise UserError(f"shards:{uri}: the data set is unfinished; run the command that was making it again")
    for name in shards:
        if not is_plain(name):
            raise UserError(
                f"shards:{uri}: the name of shard {name!r} has a control character or is not UTF-8; rename it"
            )
    classes: tuple[str, ...] = ()
    embedding = None
    if INDEX_NAME in names:
        index = Index.from_json(place.read(INDEX_NAME, INDEX_BYTES), f"{uri}/{INDEX_NAME}")
        classes, embedding = index.classes, index.embedding
    extensions = (*EXTENSIONS, *sorted(ending[1:] for ending in readable_endings())) if copied else EXTENSIONS
    remarks = Remarks(left_out=count_endings(others), embedding=embedding)
    return ShardsSource(uri, shards, classes, extensions=extensions, remarks=remarks)
