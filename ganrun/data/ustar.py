"""The members of a plain tar all at once: what `ganrun prepare` and webdataset write is read in a third of the time.

A walk from header to header holds Python's lock for microseconds a member, for which the decoders wait. Here numpy
finds the headers of the whole file and reads their numbers; who finds anything but plain files in it walks.
"""

import numpy as np

BLOCK = 512
MAGIC = np.frombuffer(b"ustar\0", np.uint8)
MAGIC_AT, NAME, SIZE, KIND, PREFIX = slice(257, 263), slice(0, 100), slice(124, 136), 156, 345
OCTAL = 8 ** np.arange(10, -1, -1)
"""Of the size's eleven digits."""


def plain_members(data: bytes) -> list[tuple[str, memoryview]] | None:
    """Name and content of each file of a POSIX.1-1988 tar whose checksums were looked at before.

    None if it is anything else, or not whole: if there is a member that is no plain file or has a long name, if the
    headers do not follow each other without a gap, if no end mark comes after them.
    """
    blocks = np.frombuffer(data, np.uint8, len(data) // BLOCK * BLOCK).reshape(-1, BLOCK)
    heads = np.flatnonzero((blocks[:, MAGIC_AT] == MAGIC).all(1))
    kinds, sizes = blocks[heads, KIND], blocks[heads, SIZE]
    digits = sizes[:, :11] - ord("0")  # What is less than "0" wraps around, beyond 7.
    plain = ((kinds == 0) | (kinds == ord("0"))).all() and (digits < 8).all()
    if not len(heads) or not plain or blocks[heads, PREFIX].any() or sizes[:, 11].any():
        return None
    lengths = digits.astype(np.int64) @ OCTAL
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
