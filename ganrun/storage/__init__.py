"""One way to open, list, put and compare-and-set what a URI names: the only place that knows about URIs."""

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
    """The storage at `uri`: a folder, or `s3://bucket/prefix`.

    Args:
        uri: where.
        patience_seconds: so long a server that does not answer is asked again.

    Raises:
        UserError: the URI's scheme is none that ganrun reads.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Folder(uri)
    if scheme == "file":
        return Folder(rest)
    if scheme == "s3" and rest.partition("/")[0]:
        return S3(uri, patience_seconds)
    raise UserError(f"{uri}: no storage that ganrun knows; allowed are a folder, file:// and s3://BUCKET/PREFIX")


def for_ray(uri: str) -> dict[str, Any]:
    """The same place as Ray Train's RunConfig takes it, with no credentials in it."""
    if not uri.startswith("s3://"):
        return {"storage_path": uri}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": uri.removeprefix("s3://"), "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem()))}


def matching(pattern: str) -> list[str]:
    """URIs that a glob names, sorted."""
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
    """Puts, reads back, lists and deletes a small object; `field` is what the message calls the place.

    Raises:
        UserError: some of these are not allowed; the message says which.
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
                continue  # It could not be written: to look for it is allowed.
            except OSError as error:
                refused.append(right)
                reason = reason or error.strerror or str(error)
                if not isinstance(error, PermissionError):
                    break  # The others would fail for the same reason.
    if refused:
        raise UserError(
            f"{field}: cannot {', '.join(refused)} {storage.uri} ({reason}); "
            "choose a place with read, write, list and delete rights"
        )


@contextlib.contextmanager
def _without_trace(storage: Storage) -> Iterator[None]:
    """Folders that were made meanwhile, and are empty, go again."""
    path = storage.path if isinstance(storage, Folder) else None
    missing = [each for each in (path, *path.parents) if not each.exists()] if path else []
    yield
    for folder in missing:
        with contextlib.suppress(OSError):  # Somebody else has put something there.
            folder.rmdir()
