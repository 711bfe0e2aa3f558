"""Zero-copy reader of plain tars: regular files with short names, as `ganrun prepare` and `tar` write them.

numpy finds all headers of the file at once and parses their numbers. A loop over the headers would hold the GIL for
microseconds per member, and the decoder threads would wait for it.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
"""Bytes per tar block; headers and contents start at multiples of it."""
MAGIC = np.frombuffer(b"ustar", np.uint8)
"""Common prefix of the magics of POSIX and GNU headers."""
NAME, SIZE, CHECKSUM, KIND, MAGIC_AT, PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    156,
    slice(257, 262),
    345,
)
OCTAL = 8 ** np.arange(10, -1, -1)
"""Place values of the 11 digits of a size."""


def plain_members(data: bytes) -> list[tuple[str, memoryview]] | None:
    """Return the name and content of each member of a plain tar (POSIX.1-1988).

    None for any other file: a member that is not a regular file, a name over 100 bytes, a wrong checksum, a gap between
    members, no end mark.
    """
    blocks = blocks_of(data)
    heads = np.flatnonzero((blocks[:, MAGIC_AT] == MAGIC).all(1))
    if not len(heads) or not _plain(blocks[heads]):
        return None
    lengths = (blocks[heads, SIZE][:, :11] - ord("0")).astype(np.int64) @ OCTAL
    ends = heads + 1 + (lengths + BLOCK - 1) // BLOCK
    if heads[0] or (ends[:-1] != heads[1:]).any() or ends[-1] >= len(blocks) or blocks[ends[-1]].any():
        return None
    names = b"\n".join(np.ascontiguousarray(blocks[heads, NAME]).view("S100").ravel().tolist())
    if b"\0" in names or names.count(b"\n") != len(heads) - 1:
        return None
    tar, starts = memoryview(data), (heads + 1) * BLOCK
    stops = (starts + lengths).tolist()
    contents = [tar[start:stop] for start, stop in zip(starts.tolist(), stops, strict=True)]
    return list(zip(names.decode(errors="replace").split("\n"), contents, strict=True))


def blocks_of(data: bytes) -> NDArray[np.uint8]:
    """Return the whole blocks of a file, [N, 512]."""
    return np.frombuffer(data, np.uint8, len(data) // BLOCK * BLOCK).reshape(-1, BLOCK)


def _plain(headers: NDArray[np.uint8]) -> bool:
    """Return True if all headers, [N, 512], are those of regular files with short names, and their checksums agree."""
    kinds, sizes, stated = headers[:, KIND], headers[:, SIZE], headers[:, CHECKSUM]
    # The checksum counts its own field as eight spaces. uint8 arithmetic wraps: bytes below "0" become large digits.
    sums = headers.sum(1, dtype=np.int64) - stated.sum(1, dtype=np.int64) + 8 * ord(" ")
    digits = stated[:, :6] - ord("0")
    return bool(
        ((kinds == 0) | (kinds == ord("0"))).all()
        and (sizes[:, :11] - ord("0") < 8).all()
        and not sizes[:, 11].any()
        and not headers[:, PREFIX].any()
        and (digits < 8).all()
        and (digits.astype(np.int64) @ OCTAL[-6:] == sums).all()
    )
