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
from ganrun.storage.folder import Folder, expand_user
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
    "exists",
    "expand_user",
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
        UserError: unsupported URI scheme, no bucket, or a path below the home of a user that does not exist.
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


def exists(uri: str, patience_seconds: float = PATIENCE_SECONDS) -> bool:
    """Return True if there is a file, folder, object or non-empty prefix at `uri`.

    Raises:
        OSError: the storage does not answer.
    """
    if not uri.startswith("s3://"):
        return os.path.exists(expand_user(uri.removeprefix("file://")))
    parent, _, name = uri.rstrip("/").rpartition("/")
    try:
        if open_storage(uri, patience_seconds).list():
            return True
        return parent != "s3:/" and name in open_storage(parent, patience_seconds).list()
    except (FileNotFoundError, PermissionError, UserError):  # No such bucket: reported by those who read it.
        return False


def matching(pattern: str, folder: str = "") -> list[str]:
    """Expand a glob, a path or `s3://BUCKET/PATTERN`, to a sorted list of URIs.

    Args:
        pattern: the glob, or its part below `folder`.
        folder: beginning of the URI without wildcards; it is taken as it is.
    """
    whole = folder + pattern
    if not whole.startswith("s3://"):
        below = glob.escape(expand_user(folder.removeprefix("file://")))
        return sorted(glob.glob(below + (pattern if folder else expand_user(pattern))))
    if not folder.startswith("s3://"):  # Neither prefix nor bucket exists.
        folder = "/".join(whole.split("/")[:3])
    places = [folder]
    for part in whole.removeprefix(folder).strip("/").split("/"):
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
            except OSError as error:
                if isinstance(error, FileNotFoundError) and right == "read from":
                    continue  # The write was refused, so there is nothing to read; reading itself is allowed.
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
