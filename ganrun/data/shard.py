"""Reads a shard: checks it against its index and walks its tar without copying what is in it.

Python's tarfile needs about a hundred microseconds a member; this walk needs a few, since a data set's
shards hold plain files only.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ganrun.data.index import Shard
from ganrun.data.ustar import BLOCK, plain_members
from ganrun.errors import UserError

PLAIN, PAX, GNU_NAME = b"0\0", b"x"[0], b"L"[0]
LEAST_UNPACKED, MOST_GROWTH = 256 * 2**20, 16
"""Bytes that a gzipped shard may have unpacked: so many, or so many times its own."""
Sample = dict[str, memoryview]
"""The members of one sample by extension (lower case, without the dot), e.g. {"png": ..., "cls": ...}."""


@dataclass(eq=False)
class OpenShard:
    """The samples of a shard as (key, members), in the order of the tar; and its address, for messages."""

    where: str
    samples: list[tuple[str, Sample]]


def open_shard(data: bytes, shard: Shard, where: str) -> list[tuple[str, Sample]]:
    """The samples of a shard, checked against its index.

    Raises:
        UserError: its size, hash or number of samples is not that of the index, or it is no tar.
    """
    if fault := damage(data, shard):
        raise UserError(f"{where}: {fault}")
    return walk_shard(data, shard, where)


def damage(data: bytes, shard: Shard) -> str | None:
    """How the bytes of a shard differ from what its index says; None if they do not."""
    if len(data) != shard.bytes:
        return wrong_size(len(data), shard)
    if (found := hashlib.sha256(data).hexdigest()) != shard.sha256:
        return f"sha256 {found[:12]}, but the index says {shard.sha256[:12]}; {_MEND}"
    return None


def wrong_size(found: int, shard: Shard) -> str:
    """How a shard of `found` bytes differs from what its index says."""
    return f"{found} bytes, but the index says {shard.bytes}; {_MEND}"


def walk_shard(data: bytes, shard: Shard, where: str) -> list[tuple[str, Sample]]:
    """The samples of an undamaged shard.

    Raises:
        UserError: it is no tar, or its number of samples is not that of the index.
    """
    samples = read_samples(data, where, known=True)
    if len(samples) != shard.samples:
        raise UserError(f"{where}: {len(samples)} samples, but the index says {shard.samples}; {_MEND}")
    return samples


_MEND = "the shard is damaged or was replaced: restore it, or index the data set again with ganrun.prepare"


def read_samples(data: bytes, where: str, known: bool = False) -> list[tuple[str, Sample]]:
    """The samples of a tar (or gzipped tar) as (key, members): members that follow each other and share
    their path up to the first dot of the file name make one sample, as in WebDataset.

    Args:
        data: the whole file.
        where: its address, for messages.
        known: whether the hash of the file says that it is one whose headers were checked before.

    Raises:
        UserError: it is no whole tar, or a key or a member of one comes twice.
    """
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, where)
    try:
        return _samples(data, where, known)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: not a tar, or damaged ({error})") from error


def _unpacked(data: bytes, where: str) -> bytes:
    """What is in a gzip; images hardly shrink, so one that grows beyond measure is no shard but a bomb."""
    limit = max(LEAST_UNPACKED, len(data) * MOST_GROWTH)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: damaged gzip ({error})") from error
    if len(unpacked) > limit:
        raise UserError(f"{where}: {len(data)} bytes that unpack to more than {limit}: no shard of samples")
    return unpacked


def _samples(data: bytes, where: str, known: bool) -> list[tuple[str, Sample]]:
    samples: list[tuple[str, Sample]] = []
    keys: set[str] = set()
    key, members = "", Sample()
    for name, content in (plain_members(data) if known else None) or _walk(data, where, known):
        folder, slash, file = name.rpartition("/")
        stem, _, extension = file.partition(".")
        if not stem or not extension:
            continue
        stem = folder + slash + stem
        if stem != key:
            if stem in keys:
                raise UserError(f"{where}: the members of sample {stem!r} do not stand together")
            keys.add(stem)
            key, members = stem, Sample()
            samples.append((key, members))
        if (extension := extension.lower()) in members:
            raise UserError(f"{where}: sample {stem!r} has two members {extension!r}")
        members[extension] = content
    return samples


def _walk(data: bytes, where: str, known: bool) -> Iterator[tuple[str, memoryview]]:
    """Name and content of each plain file of an uncompressed tar (USTAR, PAX or GNU)."""
    tar, offset = memoryview(data), 0
    override: dict[str, str] = {}
    while True:
        start = offset + BLOCK
        if start > len(data):
            raise UserError(f"{where}: not a whole tar: it ends at byte {len(data)} without an end mark")
        if data[offset] == 0 and not any(data[offset:start]):
            return
        if not known:
            _check_header(data[offset:start], offset, where)
        size = int(override["size"]) if "size" in override else _number(data[offset + 124 : offset + 136])
        if size < 0 or start + size > len(data):
            raise UserError(f"{where}: not a whole tar: member at byte {offset} is cut off")
        content, kind = tar[start : start + size], data[offset + 156]
        if kind in PLAIN:
            yield override.get("path") or _name(data[offset:start]), content
        offset = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind == PAX:
            override = _pax_records(bytes(content), f"{where}: not a tar, or damaged: bad records at byte {start}")
        elif kind == GNU_NAME:
            override = {"path": bytes(content).rstrip(b"\0").decode(errors="replace")}
        elif override:
            override = {}


def _check_header(header: bytes, offset: int, where: str) -> None:
    """POSIX.1-1988: the sum of the header's bytes, its checksum field read as spaces."""
    try:
        stated = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        stated = -1
    if stated != sum(header) - sum(header[148:156]) + 8 * 32:
        raise UserError(f"{where}: not a tar, or damaged: bad header at byte {offset}")


def _number(digits: bytes) -> int:
    """Octal, or base 256 as GNU writes large sizes."""
    if digits[0] & 0x80:
        return int.from_bytes(digits, "big") & ~(0x80 << 8 * (len(digits) - 1))
    return int(digits.rstrip(b"\0 ") or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode(errors="replace")


def _pax_records(content: bytes, fault: str) -> dict[str, str]:
    """Records of the form "LENGTH KEY=VALUE\\n", where LENGTH counts all of the record."""
    records, position = {}, 0
    while position < len(content):
        digits, _, _ = content[position : position + 20].partition(b" ")
        end = position + int(digits) if digits.isdigit() else position
        key, separator, value = content[position + len(digits) + 1 : end - 1].partition(b"=")
        if not separator or content[end - 1 : end] != b"\n" or (key == b"size" and not value.isdigit()):
            raise UserError(fault)
        records[key.decode(errors="replace")] = value.decode(errors="replace")
        position = end
    return records
