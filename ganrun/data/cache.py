"""Shards of object storage kept on this machine's disk, shared by all runs and ranks on it.

A file's name is the sha256 of its content, so that it is the same shard whatever data set it came with, and what
is read is checked against its name by the reader. Nothing here may stop a run: a disk that is full or not ours
means that there is no cache.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PART = ".part-"
STALE_SECONDS = 3600.0
LONGEST_WAIT_SECONDS = 60.0
"""So long one waits for another that fetches the same shard; that one may be stopped, and to fetch twice is no harm."""
logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where shards are kept: `ganrun/shards` below XDG_CACHE_HOME, which is ~/.cache if it is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ganrun" / "shards"


def open_cache(mib: int) -> "ShardCache | None":
    """This machine's cache of so many MiB (`data.cache_mib`); None if that is 0."""
    return ShardCache(cache_folder(), mib * 2**20) if mib else None


class ShardCache:
    """At most so many bytes of shards; those not used for longest go first.

    Args:
        folder: of the files; made if need be.
        limit: bytes in all.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._broken = False

    @contextlib.contextmanager
    def alone(self, sha256: str) -> Iterator[None]:
        """One of this machine's processes and threads at a time, so that a shard that two want is fetched once."""
        with contextlib.ExitStack() as held:
            with self._harmless():
                self.folder.mkdir(parents=True, exist_ok=True)
                # Few files for many shards: that two of them now and then wait for each other does no harm.
                lock = held.enter_context((self.folder / f".lock-{sha256[:2]}").open("w"))
                _wait_for(lock)
            yield

    def get(self, sha256: str) -> bytes | None:
        """The bytes that were put under this hash, if they are still there; they may be damaged."""
        with contextlib.suppress(OSError):
            data = (self.folder / sha256).read_bytes()
            with contextlib.suppress(OSError):  # Someone else's file may be read and not touched.
                os.utime(self.folder / sha256)
            return data
        return None

    def put(self, sha256: str, data: bytes) -> None:
        """Keeps a shard, and lets go of what is too much."""
        if len(data) > self.limit or self._broken:
            return
        with self._harmless():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=PART, dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(part, self.folder / sha256)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            self._let_go()

    def _let_go(self) -> None:
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # Another process let it go.
                status = path.stat()
                if path.name.startswith(PART) and time.time() - status.st_mtime > STALE_SECONDS:
                    path.unlink()  # Whoever wrote it was killed.
                elif not path.name.startswith("."):
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._broken:
                logger.warning("no shards are cached in %s: %s", self.folder, error.strerror or error)
            self._broken = True


def _wait_for(lock: IO[str]) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)
