"""What ganrun asks of a place that holds files, be it a folder or a prefix in a bucket.

Names are relative to the place, with `/` between their parts. Whole objects are written: a reader sees the old
bytes or the new ones, never a part. What goes wrong is an OSError whose `strerror` says it in words.
"""

import errno
from typing import NamedTuple, Protocol

from ganrun.storage.retry import Traffic

RECORD_BYTES, INDEX_BYTES = 16 * 2**20, 64 * 2**20
"""More has no pointer, manifest or config, and no index: it is not ours, and parsed it would fill the memory."""


class TooLargeError(OSError):
    """An object has more bytes than whoever reads it can want; `size` of them."""

    def __init__(self, size: int, limit: int, where: str) -> None:
        super().__init__(errno.EFBIG, f"{size:,} bytes, where at most {limit:,} belong", where)
        self.size = size


class Entry(NamedTuple):
    """What a listing tells of an object: its size, and when it was written in seconds since the epoch."""

    bytes: int
    modified: float


class Storage(Protocol):
    """Objects by name below one place."""

    uri: str

    @property
    def traffic(self) -> Traffic | None:
        """What goes over the wire; None of a folder."""

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of `name`; FileNotFoundError if there is none, TooLargeError if there are more than `limit`."""

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of the record `name` and the version to give to `replace`; None if there is none. TooLargeError
        if it has more than RECORD_BYTES."""

    def write(self, name: str, data: bytes) -> None:
        """Puts `name`, whole and durable, over whatever was there."""

    def append(self, name: str, data: bytes) -> None:
        """Adds to the end of `name`, which one writer alone may do."""

    def create(self, name: str, data: bytes) -> bool:
        """Puts `name` only if there is none; whether it did."""

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Puts `name` only if it still is at `version`; whether it did."""

    def list(self, name: str = "") -> list[str]:
        """Names directly below `name`, sorted, without hidden ones; empty if there is no such place."""

    def objects(self) -> dict[str, Entry]:
        """Every object by name, however deep and hidden ones too."""

    def delete(self, name: str) -> None:
        """Removes `name` and all below it; nothing if there is none."""

    def now(self) -> float:
        """Seconds since the epoch by the clock that all who share the storage go by."""
