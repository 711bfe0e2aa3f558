"""Makes a data set: images -> shards of plain tar, then `index.json`.

Equal images and options give equal bytes, whatever the number of processes. A cut-off run is continued
by the same command: `unfinished.json` names the shards that are done, and the index is written last.

The data set that travels with ganrun, from the files of Debian's package dataset-fashion-mnist in FOLDER:

    python -m ganrun.prepare fashion-mnist:FOLDER ganrun/data/fashion-mnist-10k --limit 10000 --gzip
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import PIL
from tqdm import tqdm

from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.convert_samples import SampleCounts, convert_all
from ganrun.preparation.preview import PREVIEW_NAME
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import UNFINISHED_NAME, Part, Source
from ganrun.preparation.write_index import SKIPPED_NAME, PackedShard, finish
from ganrun.storage import INDEX_BYTES, Storage, check_rights, open_storage


@dataclass(frozen=True)
class Packer:
    """Makes the shards of a data set; travels to the worker processes."""

    source: Source
    rule: Rule
    dest: str
    gzip: bool = False
    strict: bool = False

    def __call__(self, task: tuple[Part, PackedShard | None]) -> PackedShard:
        """Writes the shard of a part, unless it is there already as an earlier run left it."""
        part, earlier = task
        dest = open_storage(self.dest)
        if earlier and not (self.strict and earlier.counts.skipped) and _is_there(dest, earlier.shard):
            return earlier
        counts = SampleCounts([0] * self.rule.channels)
        strict = "mend it, or leave out --strict to skip it" if self.strict else None
        pictures = convert_all(self.source.items(part), self.rule, counts, strict)
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
        """The file that a part becomes."""
        return part.name.removesuffix(".gz").removesuffix(".tar") + (".tar.gz" if self.gzip else ".tar")


def pack(packer: Packer, made: dict[str, Any], shard_samples: int | None, workers: int) -> tuple[Index, list[str]]:
    """Makes the data set, or goes on with it, or finds it finished; returns its index and what was left out.
    `made` says how, and tells a data set of this command from another.

    Raises:
        UserError: the destination cannot be written or holds something else, an image does not fit the rule,
            or none is readable; then nothing of the data set stays but what an earlier command made.
    """
    dest = open_storage(packer.dest)
    check_rights(dest, "DEST")
    parts = packer.source.parts(shard_samples, packer.rule.size**2 * packer.rule.channels)
    made = {**made, "content": packer.source.identity(), "pillow": PIL.__version__}
    finished, done = find_earlier(dest, made)
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
        index = finish(dest, packer.source, packer.rule, made, [done[part.name] for part in parts])
    except UserError:
        if continued:
            raise  # What an earlier command made is worth more than a clean folder.
        for name in [*map(packer.shard_name, parts), SKIPPED_NAME, PREVIEW_NAME, UNFINISHED_NAME]:
            dest.delete(name)
        raise
    dest.delete(UNFINISHED_NAME)
    return index, [line for part in parts for line in done[part.name].counts.skipped]


def write_tar(samples: Iterable[tuple[str, dict[str, bytes]]]) -> tuple[bytes, int]:
    """Return a tar of (key, members by extension), and the number of samples. It does not depend on time, user or
    machine. Only names that are not ASCII or over 100 bytes get a PAX header: 1 KiB, and webdataset reads the shard.

    The standard library's tarfile: webdataset's TarWriter makes the same bytes, but loads torch, which
    would cost each worker process seconds.
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
    """gzip without a time or a name in its header."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, buffer, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()


def _is_there(dest: Storage, shard: Shard | None) -> bool:
    if shard is None:
        return True
    try:
        return hashlib.sha256(dest.read(shard.name)).hexdigest() == shard.sha256
    except FileNotFoundError:
        return False


def note(dest: Storage, made: dict[str, Any], done: dict[str, PackedShard]) -> None:
    """Says in `unfinished.json` what is being made, and how much of it is done."""
    state = {"made": made, "done": {name: asdict(result) for name, result in done.items()}}
    dest.write(UNFINISHED_NAME, json.dumps(state, indent=1).encode())


def find_earlier(dest: Storage, made: dict[str, Any]) -> tuple[Index | None, dict[str, PackedShard]]:
    """The finished data set at the destination, or what an earlier run did of it."""
    names = dest.list()
    if INDEX_NAME in names:
        index = Index.from_json(dest.read(INDEX_NAME, INDEX_BYTES), f"{dest.uri}/{INDEX_NAME}")
        _check_same(dest, "a data set", index.made, made)
        dest.delete(UNFINISHED_NAME)
        return index, {}
    if UNFINISHED_NAME in names:
        state = json.loads(dest.read(UNFINISHED_NAME))
        _check_same(dest, "an unfinished data set", state["made"], made)
        return None, {name: PackedShard.from_dict(fields) for name, fields in state["done"].items()}
    if names:
        raise UserError(f"DEST {dest.uri}: not empty (it holds {names[0]!r}); choose an empty or a new folder")
    return None, {}


def _check_same(dest: Storage, what: str, found: dict[str, Any], made: dict[str, Any]) -> None:
    for key, value in made.items():
        if found.get(key) != value:
            raise UserError(
                f"DEST {dest.uri}: holds {what} made with {key} {found.get(key)!r}, not {value!r}; "
                "choose another folder, or delete that one"
            )
