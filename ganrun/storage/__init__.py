"""Opens a URI as a `Storage`: read, write, list, delete and compare-and-set. All knowledge of URI schemes is here."""

import contextlib
import glob
import os
import uuid
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from ganrun.errors import UserError
from ganrun.storage.base import INDEX_BYTES, RECORD_BYTES, Entry, Storage, TooLargeError
from ganrun.storage.folder import Folder
from ganrun.storage.retry import PATIENCE_SECONDS
from ganrun.storage.s3 import S3
from ganrun.storage.s3_client import filesystem

__all__ = [
    "INDEX_BYTES",
    "PATIENCE_SECONDS",
    "RECORD_BYTES",
    "Entry",
    "Folder",
    "Storage",
    "TooLargeError",
    "check_rights",
    "for_ray",
    "matching",
    "open_storage",
]


def open_storage(uri: str, patience_seconds: float = PATIENCE_SECONDS) -> Storage:
    """Open the storage at `uri`. Sends no request.

    Args:
        uri: path of a folder, `file://PATH` or `s3://BUCKET/PREFIX`.
        patience_seconds: retry budget for requests to a server that does not answer.

    Raises:
        UserError: unsupported URI scheme, or no bucket.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(uri)
    if scheme == "file":
        return Folder(rest)
    if scheme == "s3" and rest.partition("/")[0]:
        return S3(uri, patience_seconds)
    raise UserError(f"{uri}: unsupported storage; use a folder, file://PATH or s3://BUCKET/PREFIX")


def for_ray(uri: str) -> dict[str, Any]:
    """Return the keyword arguments of Ray Train's RunConfig for this storage. They contain no credentials."""
    if not uri.startswith("s3://"):
        return {"storage_path": uri}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": uri.removeprefix("s3://"), "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem()))}


def matching(pattern: str) -> list[str]:
    """Expand a glob, a path or `s3://BUCKET/PATTERN`, to a sorted list of URIs."""
    if not pattern.startswith("s3://"):
        return sorted(glob.glob(os.path.expanduser(pattern)))
    bucket, *parts = pattern.removeprefix("s3://").split("/")
    places = [f"s3://{bucket}"]
    for part in parts:
        if glob.has_magic(part):
            found = ((place, name) for place in places for name in open_storage(place).list())
            places = [f"{place}/{name}" for place, name in found if fnmatchcase(name, part)]
        else:
            places = [f"{place}/{part}" for place in places]
    return sorted(places)


def check_rights(storage: Storage, field: str) -> None:
    """Write, read, list and delete a small object to check all rights before a run starts.

    Args:
        storage: storage to check.
        field: config key or argument that names it, for the message.

    Raises:
        UserError: a right is missing, or the storage does not answer; the message lists what failed.
    """
    name, refused, reason = f".write-test-{uuid.uuid4().hex}", [], ""
    attempts: dict[str, Callable[[], object]] = {
        "write to": lambda: storage.write(name, b"ganrun"),
        "read from": lambda: storage.read(name),
        "list": storage.list,
        "delete in": lambda: storage.delete(name),
    }
    with _without_trace(storage):
        for right, attempt in attempts.items():
            try:
                attempt()
            except FileNotFoundError:
                continue  # The write was refused, so there is nothing to read; reading itself is allowed.
            except OSError as error:
                refused.append(right)
                reason = reason or error.strerror or str(error)
                if not isinstance(error, PermissionError):
                    break  # The rest would fail for the same reason.
    if refused:
        raise UserError(
            f"{field}: cannot {', '.join(refused)} {storage.uri} ({reason}); "
            "choose a place with read, write, list and delete rights"
        )


@contextlib.contextmanager
def _without_trace(storage: Storage) -> Iterator[None]:
    """Remove empty folders that were created within the block."""
    path = storage.path if isinstance(storage, Folder) else None
    missing = [each for each in (path, *path.parents) if not each.exists()] if path else []
    yield
    for folder in missing:
        with contextlib.suppress(OSError):  # Not empty: another process has written to it.
            folder.rmdir()
