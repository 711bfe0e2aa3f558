"""Reader of all tars that are not plain: PAX headers, GNU names, links, folders. webdataset reads these.

Its tar iterator is Python's tarfile, which takes about 100 us and a copy per member. It tolerates much: it takes a
corrupt header for the end of the file, and allocates what a header asks for. Here that is an error.
"""

import contextlib
import io
import tarfile
from collections.abc import Iterator

import numpy as np

from ganrun.data.ustar import BLOCK, KIND, SIZE, blocks_of
from ganrun.errors import UserError

PAX_KINDS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
CHECKED_KINDS = np.frombuffer(b"".join((*PAX_KINDS, tarfile.GNUTYPE_SPARSE)), np.uint8)
PAX_BYTES = 16 * 1024
"""Largest PAX header read; a path has at most 4 KiB. tarfile's time is quadratic in it before Python 3.11.10."""
NEGATIVE = 0xFF
"""First byte of a negative size in base 256."""


def tar_members(data: bytes, where: str) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and content of each regular file of a tar.

    Args:
        data: the whole file.
        where: address of the file, for messages.

    Raises:
        UserError: the file is not a tar, is truncated or corrupt, or holds sparse files.
    """
    from webdataset.tariterators import tar_file_iterator  # Imports torch: over a second.

    _check_headers(data, where)
    tar = _Blocks(data)
    try:
        for member in tar_file_iterator(tar):
            # tarfile keeps bytes that are not UTF-8 as surrogates, which no output can encode.
            name = member["fname"].encode(errors="surrogateescape").decode(errors="replace")
            yield name, memoryview(member["data"])
    except Exception as error:  # Corrupt headers make tarfile raise nearly anything, e.g. RecursionError.
        raise _fault(tar, where, str(error.args[0] if error.args else type(error).__name__)) from error
    if any(data[tar.tell() - BLOCK : tar.tell()]):  # No end mark: tarfile also ends at a header that it cannot read.
        raise _fault(tar, where, f"bad header at byte {tar.tell() - BLOCK}")


class _Blocks(io.BytesIO):
    """Tar that is read block by block, so that `tell` is the end of the last header that tarfile read.

    The first read returns a single byte: too few for tarfile to recognise a compressed file, which it would unpack.
    """

    ran_out = False
    """True once a read was tried at the end of the file."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the rest of the current block.

        Raises:
            ReadError: the file ends here. tarfile would go on, and loop for ages over a member of 2^80 bytes.
        """
        at = self.tell()
        found = super().read(BLOCK - at % BLOCK if at else 1)
        if not found:
            self.ran_out = True
            raise tarfile.ReadError("unexpected end of data")
        return found

    def __repr__(self) -> str:
        """webdataset appends it to messages."""
        return f"byte {self.tell()}"


def _fault(tar: _Blocks, where: str, reason: str) -> UserError:
    if tar.ran_out:
        return UserError(f"{where}: not a whole tar: it ends at byte {tar.tell()} without an end mark")
    return UserError(f"{where}: not a tar, or corrupt: {reason}")


def _check_headers(data: bytes, where: str) -> None:
    """Refuse sparse files, negative sizes and malformed PAX records.

    A sparse file of a few bytes may unpack to terabytes. tarfile ignores PAX records from the first malformed one on,
    so that a file would lose its name. All blocks that are valid headers are checked, also those within a member.

    Raises:
        UserError: names the byte at which the header is.
    """
    blocks = blocks_of(data)
    suspects = np.isin(blocks[:, KIND], CHECKED_KINDS) | (blocks[:, SIZE.start] == NEGATIVE)
    for number in np.flatnonzero(suspects).tolist():
        try:
            header = tarfile.TarInfo.frombuf(blocks[number].tobytes(), "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            continue  # Content of a member.
        start = (number + 1) * BLOCK
        sparse = header.type == tarfile.GNUTYPE_SPARSE
        pax = header.type in PAX_KINDS and start + header.size <= len(data)
        if sparse or header.size < 0 or (pax and not _well_formed(data[start : start + header.size])):
            raise UserError(f"{where}: not a tar, or corrupt: bad header at byte {start - BLOCK}")


def _well_formed(records: bytes) -> bool:
    """Return True for PAX records "LENGTH KEY=VALUE\\n" (POSIX.1-2001), where LENGTH counts the whole record."""
    if len(records) > PAX_BYTES:
        return False
    while records:
        digits, _, rest = records.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record, records = records[:length], records[length:]
        if len(record) < length or not record.endswith(b"\n") or b"=" not in record or rest.startswith(b"GNU.sparse."):
            return False
    return True


def no_files(data: bytes, where: str) -> list[tuple[str, str]]:
    """Return (name, reason) of each member that is neither a regular file nor a folder, of a tar that was read whole.

    Raises:
        UserError: there are members after the end mark, which readers do not see.
    """
    found, tar = [], _Blocks(data)
    with tarfile.open(fileobj=tar, mode="r|") as members:
        for member in members:
            name = member.name.encode(errors="surrogateescape").decode(errors="replace")
            if member.islnk() or member.issym():
                found.append((name, f"a link to {member.linkname!r}, not a file; pack the file itself"))
            elif not member.isreg() and not member.isdir():
                found.append((name, "not a regular file"))
    blocks, end = blocks_of(data), tar.tell() // BLOCK
    for number in np.flatnonzero(blocks[end:].any(1)).tolist():
        with contextlib.suppress(tarfile.HeaderError):
            tarfile.TarInfo.frombuf(blocks[end + number].tobytes(), "utf-8", "surrogateescape")
            raise UserError(
                f"{where}: has an end mark at byte {tar.tell() - BLOCK}, and members after it from byte "
                f"{(end + number) * BLOCK}, which no reader sees (tars one after another?); unpack and pack one tar"
            )
    return found
