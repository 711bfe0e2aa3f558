"""Packs images into tar shards, then writes `index.json`.

Equal images and options give equal shards for any number of processes. The same command continues an interrupted one:
`unfinished.json` lists finished shards, and the index is written last.

The bundled data set was made from the files of Debian's package dataset-fashion-mnist in FOLDER:

    python -m ganrun.prepare fashion-mnist:FOLDER ganrun/data/fashion-mnist-10k --limit 10000 --gzip
"""

import gzip
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import PIL
from tqdm import tqdm

from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.convert_samples import SampleCounts, convert_all
from ganrun.preparation.embed import Embedder
from ganrun.preparation.preview import PREVIEW_NAME
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import UNFINISHED_NAME, Part, Source
from ganrun.preparation.write_index import SKIPPED_NAME, PackedShard, finish
from ganrun.storage import INDEX_BYTES, Storage, check_rights, open_storage

logger = logging.getLogger(__name__)

SHOWN_COLUMNS = 8
"""Most columns of a table that a message names."""


@dataclass(frozen=True)
class Packer:
    """Makes the shards of a data set. Pickled to worker processes.

    Attributes:
        source: images.
        rule: conversion of each image.
        dest: folder or URI of the data set.
        gzip: compress shards.
        strict: fail on an unreadable image instead of skipping it.
        embed: adds embeddings of the captions; None: none are added.
    """

    source: Source
    rule: Rule
    dest: str
    gzip: bool = False
    strict: bool = False
    embed: Embedder | None = None

    def __call__(self, task: tuple[Part, PackedShard | None]) -> PackedShard:
        """Write the shard of a part. A shard that an earlier command finished is kept if its hash still matches."""
        part, earlier = task
        dest = open_storage(self.dest)
        if earlier and not (self.strict and earlier.counts.skipped) and _is_there(dest, earlier.shard):
            return earlier
        counts = SampleCounts([0] * self.rule.channels)
        strict = "repair it, or leave out --strict to skip it" if self.strict else None
        items = self.embed(self.source.items(part)) if self.embed else self.source.items(part)
        pictures = convert_all(items, self.rule, counts, strict)
        members = ((item.key, {**item.members, picture.extension: picture.data}) for item, picture in pictures)
        data, samples = write_tar(members)
        if not samples:
            return PackedShard(None, counts)
        if self.gzip:
            data = compress(data)
        name = self.shard_name(part)
        dest.write(name, data)
        return PackedShard(Shard(name, samples, len(data), hashlib.sha256(data).hexdigest()), counts)

    def shard_name(self, part: Part) -> str:
        """Return the file name of a part."""
        return part.name.removesuffix(".gz").removesuffix(".tar") + (".tar.gz" if self.gzip else ".tar")


def pack(packer: Packer, made: dict[str, Any], shard_samples: int | None, workers: int) -> tuple[Index, list[str]]:
    """Make a data set, or continue an unfinished one. A finished one is left as it is.

    Args:
        packer: source, conversion and destination.
        made: options that determine the content; the index records them, to recognise a data set of the same command.
        shard_samples: maximum number of images per shard; None: see `shuffled_parts`.
        workers: number of processes.

    Returns:
        The index, and a line for each skipped image.

    Raises:
        UserError: the destination cannot be written or holds another data set, an image does not fit the rule, or no
            image is readable. All files of this command are then deleted, except those of an earlier one.
    """
    dest = open_storage(packer.dest)
    check_rights(dest, "DEST")
    if packer.strict and packer.source.remarks.unread:
        raise UserError(f"{packer.source.remarks.unread[0]}; repair or remove it, or leave out --strict to skip it")
    parts = packer.source.parts(shard_samples, packer.rule.size**2 * packer.rule.channels)
    _check_names(packer, parts)
    made = {**made, "content": packer.source.identity(), "pillow": PIL.__version__}
    finished, done = find_earlier(dest, made, packer.source.old_identity)
    if finished:
        return finished, []
    continued = bool(done)
    note(dest, made, done)
    tasks = [(part, done.get(part.name)) for part in parts]
    try:
        results = tqdm(parallel_map(packer, tasks, workers), "packing", len(tasks), unit=" shards", disable=None)
        for part, result in zip(parts, results, strict=True):
            done[part.name] = result
            note(dest, made, done)
        embedding = packer.embed.field if packer.embed else packer.source.remarks.embedding
        index = finish(dest, packer.source, packer.rule, made, [done[part.name] for part in parts], embedding)
    except UserError:
        if continued:
            raise  # Keep the shards of an earlier command: the user may continue with them.
        for name in [*map(packer.shard_name, parts), SKIPPED_NAME, PREVIEW_NAME, UNFINISHED_NAME]:
            dest.delete(name)
        raise
    dest.delete(UNFINISHED_NAME)
    skipped = [line for part in parts for line in done[part.name].counts.skipped]
    return index, [*packer.source.remarks.unread, *skipped]


def write_tar(samples: Iterable[tuple[str, dict[str, bytes]]]) -> tuple[bytes, int]:
    """Write samples, (key, members by extension), to a tar. Return its bytes and the number of samples.

    The bytes do not depend on time, user or machine. Only names that are not ASCII or over 100 bytes get a PAX header,
    1 KiB, and are read through webdataset. Its TarWriter makes the same bytes, but imports torch: seconds per process.
    """
    buffer, count = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, members in samples:
            for extension, content in sorted(members.items()):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size, member.mtime, member.mode = len(content), 0, 0o444
                tar.addfile(member, io.BytesIO(content))
            count += 1
    return buffer.getvalue(), count


def compress(data: bytes) -> bytes:
    """Compress with gzip, without time and file name in the header, so that equal data give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, buffer, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()


def _check_names(packer: Packer, parts: Sequence[Part]) -> None:
    """Refuse parts whose shards would overwrite each other, such as `a.tar` and `a.tar.gz`."""
    taken: dict[str, str] = {}
    for part in parts:
        if other := taken.get(name := packer.shard_name(part)):
            raise UserError(f"SOURCE: {other} and {part.name} would both become {name}; rename one")
        taken[name] = part.name


def _is_there(dest: Storage, shard: Shard | None) -> bool:
    if shard is None:
        return True
    try:
        return hashlib.sha256(dest.read(shard.name)).hexdigest() == shard.sha256
    except FileNotFoundError:
        return False


def note(dest: Storage, made: dict[str, Any], done: dict[str, PackedShard]) -> None:
    """Record options and finished shards in `unfinished.json`."""
    state = {"made": made, "done": {name: asdict(result) for name, result in done.items()}}
    dest.write(UNFINISHED_NAME, json.dumps(state, indent=1).encode())


def find_earlier(
    dest: Storage, made: dict[str, Any], old_identity: Callable[[], str | None] = lambda: None
) -> tuple[Index | None, dict[str, PackedShard]]:
    """Look for a data set of the same command at the destination.

    Args:
        dest: the destination.
        made: options that determine the content, and its hash under `content`.
        old_identity: returns the hash by which older ganrun knew the source; None if it is of no use.

    Returns:
        Its index if it is finished, else None; and finished shards by name of their part if it is unfinished.

    Raises:
        UserError: the destination holds another data set or other files.
    """
    names = dest.list()
    if INDEX_NAME in names:
        index = Index.from_json(dest.read(INDEX_NAME, INDEX_BYTES), f"{dest.uri}/{INDEX_NAME}")
        _check_same(dest, "a data set", index.made, made, old_identity)
        dest.delete(UNFINISHED_NAME)
        return index, {}
    if UNFINISHED_NAME in names:
        state = json.loads(dest.read(UNFINISHED_NAME))
        _check_same(dest, "an unfinished data set", state["made"], made, old_identity)
        return None, {name: PackedShard.from_dict(fields) for name, fields in state["done"].items()}
    if names:
        raise UserError(f"DEST {dest.uri}: not empty (has {names[0]!r}); choose an empty or new folder")
    return None, {}


def _check_same(
    dest: Storage, what: str, found: dict[str, Any], made: dict[str, Any], old_identity: Callable[[], str | None]
) -> None:
    advice = "choose another folder or delete this one"
    for key, value in made.items():
        if key != "content" and found.get(key) != value:
            before = _unlike(key, found[key], value) if key in found else f"by a ganrun that knew no {key}"
            raise UserError(f"DEST {dest.uri}: has {what} made {before}; {advice}")
    if found.get("content") == made.get("content"):
        return
    if found.get("content") != old_identity():
        raise UserError(
            f"DEST {dest.uri}: has {what} made of other files, or of files, fields or classes that have changed since, "
            f"or by an older ganrun that cannot tell; {advice}"
        )
    logger.warning(
        "DEST %s: has %s of an older ganrun, which recorded no times of files: names and sizes agree, so it is kept; "
        "if a picture has changed since, %s",
        *(dest.uri, what, advice),
    )


def _unlike(key: str, found: Any, value: Any) -> str:
    """Return how an option of a data set differs from the wanted one; columns of a table by their names."""
    if key != "columns":
        return f"with {key} {found!r}, not {value!r}"
    theirs, ours = ([column["name"] for column in columns] for columns in (found, value))
    if theirs == ours:
        return "of another table: its columns have the same names, but other numbers"
    return f"of a table with other columns: {_named(theirs)}; not {_named(ours)}"


def _named(columns: Sequence[str]) -> str:
    """Return the names of columns, the first few of many."""
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    return ", ".join(columns[:SHOWN_COLUMNS]) + more
