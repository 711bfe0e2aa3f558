"""Samples of a shard: the file verified against its index, its members grouped by key."""

import gzip
import hashlib
import io
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ganrun.data.index import Shard
from ganrun.data.ustar import plain_members
from ganrun.data.webdataset_tar import no_files, tar_members
from ganrun.errors import UserError

if TYPE_CHECKING:
    from ganrun.data.decoded import DecodedImages

GZIP = b"\x1f\x8b"
UNPACKED_BYTES, UNPACKED_RATIO = 256 * 2**20, 16
"""Largest size of an unpacked gzip: in bytes, or as a multiple of the packed size, whichever is greater."""
METADATA = re.compile(r"__[^/]*__($|/)")
"""Members that describe the shard; the pattern with which webdataset skips them."""
Sample = dict[str, memoryview]
"""Members of one sample by extension (lower case, without the dot), e.g. {"png": ..., "cls": ...}."""


MIRRORED = " mirrored"
"""End of the key of a mirror image."""


class MirroredSample(dict[str, memoryview]):
    """Members of a sample of which all pictures are read mirrored, left and right swapped."""


_REMEDY = "the shard is corrupt or was replaced: restore it, or index the data set again with ganrun prepare"


@dataclass(eq=False)
class OpenShard:
    """Samples of a shard.

    Attributes:
        where: address of the shard, for messages.
        samples: (key, members) in the order of the tar. Of a part of a data set, those of the part alone: nothing that
            reads it can show another one.
        sha256: of the shard; empty for one that is in no index.
        numbers: number of each sample in the whole shard, by key.
    """

    where: str
    samples: list[tuple[str, Sample]]
    sha256: str = ""
    numbers: dict[str, int] = field(default_factory=dict)
    decoded: dict[str, "DecodedImages | None"] = field(default_factory=dict)
    """Its decoded images by form, once they were asked for."""

    def number(self, key: str, members: Sample) -> int:
        """Return the number of a sample in the whole shard; a mirror image has that of its image."""
        return self.numbers[key.removesuffix(MIRRORED) if isinstance(members, MirroredSample) else key]


def with_mirror_images(samples: list[tuple[str, Sample]]) -> list[tuple[str, Sample]]:
    """Return samples, each followed by its mirror image, whose key ends with MIRRORED."""
    return [each for key, sample in samples for each in ((key, sample), (key + MIRRORED, MirroredSample(sample)))]


def open_shard(data: bytes, shard: Shard, where: str) -> list[tuple[str, Sample]]:
    """Verify a shard against its index and return its samples.

    Raises:
        UserError: size, hash or number of samples differ from the index, or the file is not a tar.
    """
    if fault := mismatch(data, shard):
        raise UserError(f"{where}: {fault}")
    return read_verified(data, shard, where)


def mismatch(data: bytes, shard: Shard) -> str | None:
    """Return the difference of size or hash between a shard and its index, for a message; None if there is none."""
    if len(data) != shard.bytes:
        return size_mismatch(len(data), shard)
    if (found := hashlib.sha256(data).hexdigest()) != shard.sha256:
        return f"sha256 {found[:12]}, but the index says {shard.sha256[:12]}; {_REMEDY}"
    return None


def size_mismatch(found: int, shard: Shard) -> str:
    """Return the message for a shard of `found` bytes."""
    return f"{found} bytes, but the index says {shard.bytes}; {_REMEDY}"


def read_verified(data: bytes, shard: Shard, where: str) -> list[tuple[str, Sample]]:
    """Return the samples of a shard whose hash was verified.

    Raises:
        UserError: the file is not a tar, or its number of samples differs from the index.
    """
    samples = read_samples(data, where)
    if len(samples) != shard.samples:
        raise UserError(f"{where}: {len(samples)} samples, but the index says {shard.samples}; {_REMEDY}")
    return samples


def read_samples(data: bytes, where: str, outside: list[tuple[str, str]] | None = None) -> list[tuple[str, Sample]]:
    """Return the samples of a tar or gzipped tar as (key, members).

    The format is WebDataset's: consecutive files with the same key make one sample. A plain tar is read in place, any
    other one by webdataset; the samples are the same.

    Args:
        data: the whole file.
        where: address of the file, for messages.
        outside: list that gets (name, reason) of each member that belongs to no sample, hidden ones apart. With it,
            members after the end mark, which no reader sees, are an error. None: such members are ignored.

    Raises:
        UserError: the file is not a tar, is truncated or corrupt, or a key or a member of a sample occurs twice.
    """
    if data.startswith(GZIP):
        data = _unpacked(data, where)
    samples: list[tuple[str, Sample]] = []
    keys: set[str] = set()
    key, members = "", Sample()
    plain = plain_members(data)
    for name, content in plain or tar_members(data, where):
        found, extension = split_name(name)
        if not found or not extension:
            if outside is not None and not METADATA.match(name) and not name.rpartition("/")[2].startswith("."):
                outside.append((name, "no ending, hence part of no sample"))
            continue
        if found != key:
            if found in keys:
                raise UserError(f"{where}: the members of sample {found!r} do not stand together")
            keys.add(found)
            key, members = found, Sample()
            samples.append((key, members))
        if extension in members:
            raise UserError(f"{where}: sample {key!r} has two members {extension!r}")
        members[extension] = content
    if outside is not None and not plain:
        outside += no_files(data, where)
    return samples


def split_name(name: str) -> tuple[str, str]:
    """Return the key and the extension of a member: the path up to the first dot of the file name, and the rest in
    lower case. At least one is empty if the member belongs to no sample.
    """
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    if not stem or METADATA.match(name):
        return "", ""
    return folder + slash + stem, extension.lower()


def _unpacked(data: bytes, where: str) -> bytes:
    """Unpack a gzip. Images hardly shrink, so a file that grows beyond the limit is a decompression bomb."""
    limit = max(UNPACKED_BYTES, len(data) * UNPACKED_RATIO)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: corrupt gzip ({error})") from error
    if len(unpacked) > limit:
        raise UserError(f"{where}: {len(data)} bytes that unpack to more than {limit}: not a shard of samples")
    return unpacked
