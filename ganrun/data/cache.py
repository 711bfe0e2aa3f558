"""Disk cache for shards from object storage and for decoded images, shared by all runs and ranks of a machine.

The name of a shard's file is the sha256 of its content: a shard is the same in every data set, and the reader verifies
it. `decoded.py` has the files of decoded images. The cache never stops a run: with a full or read-only disk there is no
cache.
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
"""Prefix of a file that is being written."""
STALE_SECONDS = 3600.0
"""Age at which such a file is deleted: its process was killed."""
LONGEST_WAIT_SECONDS = 60.0
"""Longest wait for another process that fetches the same shard; then it is fetched twice."""
logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of the cache: `ganrun/shards` below XDG_CACHE_HOME, by default ~/.cache.

    A relative XDG_CACHE_HOME is ignored, as its specification demands. A user without a home has the folder for
    temporary files.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        home = os.path.expanduser("~")
        base = Path(home, ".cache") if home != "~" else Path(tempfile.gettempdir())
    return base / "ganrun" / "shards"


def open_cache(mib: int) -> "ShardCache | None":
    """Return this machine's cache with a limit of `mib` MiB (`data.cache_mib`); None if that is 0."""
    return ShardCache(cache_folder(), mib * 2**20) if mib else None


class ShardCache:
    """Cache of shards that evicts the least recently used.

    Args:
        folder: folder of the files; created if missing.
        limit: total size in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.broken = False
        """True if the disk did not take a file: from then on nothing is written."""

    @contextlib.contextmanager
    def alone(self, sha256: str) -> Iterator[None]:
        """Hold the lock of a shard among the processes and threads of this machine, so that it is fetched once."""
        with contextlib.ExitStack() as held:
            with self.ignoring_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                # 256 locks for all shards: two of them rarely wait for each other.
                lock = held.enter_context((self.folder / f".lock-{sha256[:2]}").open("w"))
                _wait_for(lock)
            yield

    def get(self, sha256: str) -> bytes | None:
        """Return the bytes that were put under this hash, not verified; None if they are gone."""
        with contextlib.suppress(OSError):
            data = (self.folder / sha256).read_bytes()
            with contextlib.suppress(OSError):  # A file of another user may be readable only.
                os.utime(self.folder / sha256)
            return data
        return None

    def put(self, sha256: str, data: bytes) -> None:
        """Store a shard and evict others beyond the limit."""
        if len(data) > self.limit or self.broken:
            return
        with self.ignoring_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=PART, dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(part, self.folder / sha256)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            self._evict()

    def open_sized(self, name: str, size: int) -> int | None:
        """Open a file of exactly `size` bytes for reading and writing; a new one, or one of another size, is all zeros.

        Returns:
            Its descriptor; None if it does not fit, or the disk does not allow it.
        """
        if size > self.limit or self.broken:
            return None
        with self.ignoring_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if os.fstat(file).st_size != size:
                    os.ftruncate(file, 0)
                    os.ftruncate(file, size)  # Sparse: it takes what is written.
                    self._evict()
                else:
                    os.utime(file)
            except BaseException:
                os.close(file)
                raise
            return file
        return None

    def _evict(self) -> None:
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # Another process evicted it.
                status = path.stat()
                if path.name.startswith(PART) and time.time() - status.st_mtime > STALE_SECONDS:
                    path.unlink()  # Its writer was killed.
                elif not path.name.startswith("."):
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    @contextlib.contextmanager
    def ignoring_errors(self) -> Iterator[None]:
        """End the use of the cache at an error of the disk within the block, with one line."""
        try:
            yield
        except OSError as error:
            known, self.broken = self.broken, True
            if not known:
                logger.warning("nothing is cached in %s: %s", self.folder, error.strerror or error)


def _wait_for(lock: IO[str]) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)
