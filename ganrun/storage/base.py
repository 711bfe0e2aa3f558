"""Interface of a storage: a folder, or a prefix in a bucket.

Object names are relative to the storage, with `/` as separator. Writes are atomic: a reader sees the old or the new
bytes, never a part. Every failure is an OSError whose `strerror` is a message for the user.
"""

import errno
from typing import NamedTuple, Protocol

from ganrun.storage.retry import Traffic

RECORD_BYTES, INDEX_BYTES = 16 * 2**20, 64 * 2**20
"""Maximum size of records (pointers, manifests, configs) and of indexes. Larger files are not ours: parsing one could
exhaust the memory."""


class TooLargeError(OSError):
    """An object has `size` bytes, more than the limit of the reader."""

    def __init__(self, size: int, limit: int, where: str) -> None:
        super().__init__(errno.EFBIG, f"{size:,} bytes, at most {limit:,} are allowed", where)
        self.size = size


class Entry(NamedTuple):
    """Metadata of an object: size in bytes, and time of the last write in seconds since the epoch."""

    bytes: int
    modified: float


class Storage(Protocol):
    """Objects by name below one URI."""

    uri: str

    @property
    def traffic(self) -> Traffic | None:
        """Request and byte counters; None for a folder."""

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: no such object.
            TooLargeError: it has more than `limit` bytes.
        """

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """Return the bytes of a record and its version for `replace`; None if it does not exist.

        Raises:
            TooLargeError: it has more than RECORD_BYTES.
        """

    def write(self, name: str, data: bytes) -> None:
        """Write an object atomically and durably. An existing one is overwritten."""

    def append(self, name: str, data: bytes) -> None:
        """Append to an object. Only one process may append to the same object."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object only if it does not exist. Return True if it was written."""

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Overwrite an object only if it is still at `version` (compare-and-set). Return True if it was written."""

    def list(self, name: str = "") -> list[str]:
        """Return names directly below `name`, sorted, without hidden ones; empty if `name` does not exist."""

    def objects(self) -> dict[str, Entry]:
        """Return all objects by name, recursively, hidden ones included."""

    def delete(self, name: str) -> None:
        """Delete `name` and everything below it. Do nothing if it does not exist."""

    def now(self) -> float:
        """Return seconds since the epoch by the clock of the storage, which all its users share (leases need it)."""
