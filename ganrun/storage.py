"""One way to open, list, put and compare-and-set what a URI names.

A `Storage` is a folder (or, later, a prefix in a bucket); names below it are relative, with `/` between
their parts. Whole objects are written: a reader sees the old bytes or the new ones, never a part.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ganrun.errors import UserError


class Entry(NamedTuple):
    """What a listing tells of an object: its size, and when it was written in seconds since the epoch."""

    bytes: int
    modified: float


class Storage(Protocol):
    """Objects by name below one place."""

    uri: str

    def read(self, name: str) -> bytes:
        """The bytes of `name`; FileNotFoundError if there is none."""

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of `name` and the version to give to `replace`; None if there is none."""

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


class Folder:
    """A folder of this machine, or one that all nodes mount."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.uri = str(self.path)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        try:
            data = self.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data, hashlib.sha256(data).hexdigest()

    def write(self, name: str, data: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".part-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def append(self, name: str, data: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        with self._alone():
            if (self.path / name).exists():
                return False
            self.write(name, data)
            return True

    def replace(self, name: str, data: bytes, version: str) -> bool:
        with self._alone():
            found = self.read_version(name)
            if found is None or found[1] != version:
                return False
            self.write(name, data)
            return True

    def list(self, name: str = "") -> list[str]:
        try:
            return sorted(e for e in os.listdir(self.path / name) if not e.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def objects(self) -> dict[str, Entry]:
        found = {}
        for folder, _, files in os.walk(self.path):
            for path in (Path(folder, file) for file in files):
                with contextlib.suppress(FileNotFoundError):  # Deleted since it was listed.
                    status = path.lstat()
                    found[path.relative_to(self.path).as_posix()] = Entry(status.st_size, status.st_mtime)
        return found

    def delete(self, name: str) -> None:
        target = self.path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def now(self) -> float:
        return time.time()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Conditional writes take turns under a file lock, which the system frees when its holder dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _sync_folder(path: Path) -> None:
    """Makes a rename in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_storage(uri: str) -> Storage:
    """The storage at `uri`.

    Raises:
        UserError: the URI's scheme is none that ganrun reads.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(uri)
    if scheme == "file":
        return Folder(rest)
    raise UserError(f"{uri}: no storage of the kind '{scheme}://'; allowed are a folder and file://")


def check_writable(storage: Storage, field: str = "run.storage") -> None:
    """Puts, reads back and deletes a small object; `field` is what the message calls the place.

    Raises:
        UserError: one of the three is not allowed; the message says which.
    """
    name, right = f".write-test-{os.getpid()}", "write to"
    try:
        storage.write(name, b"ganrun")
        right = "read from"
        storage.read(name)
        right = "delete in"
        storage.delete(name)
    except OSError as error:
        raise UserError(
            f"{field}: cannot {right} {storage.uri} ({error.strerror or error}); "
            "choose a place with read, write and delete rights"
        ) from error
