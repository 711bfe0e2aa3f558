"""Storage in a local folder, or in one that all nodes mount."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ganrun.errors import UserError
from ganrun.storage.base import RECORD_BYTES, Entry, TooLargeError


def expand_user(path: str) -> str:
    """Return a path with the home folder in place of `~` or `~USER` at its beginning.

    Raises:
        UserError: there is no such user, and no file or folder of that name here, which would be made.
    """
    whole, first = os.path.expanduser(path), path.partition("/")[0]
    if whole.startswith("~") and not os.path.exists(first):
        raise UserError(
            f"{path}: this machine has no user {first[1:]!r}; write the whole path, or ./{path} for a folder of that "
            "name"
        )
    return whole


class Folder:
    """Objects as files below a folder. `create` and `replace` are serialised by a file lock."""

    traffic = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(expand_user(str(path))).absolute()
        self.uri = str(self.path)

    def read(self, name: str, limit: int | None = None) -> bytes:
        path = self.path / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise PermissionError(errno.EACCES, "is outside its folder", str(path))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # Reading a device or a pipe may never end.
            kind = IsADirectoryError if stat.S_ISDIR(status.st_mode) else PermissionError
            raise kind(errno.EACCES, "is not a regular file", str(path))
        if limit is not None and status.st_size > limit:
            raise TooLargeError(status.st_size, limit, str(path))
        return path.read_bytes()

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        try:
            data = self.read(name, RECORD_BYTES)
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
                with contextlib.suppress(FileNotFoundError):  # Deleted after it was listed.
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
        """Hold the lock of conditional writes. The kernel releases it if the process dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _sync_folder(path: Path) -> None:
    """Flush the directory, so that a rename in it survives a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
