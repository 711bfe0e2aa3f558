"""One way to open, list, put and compare-and-set what a URI names: the only place that knows about URIs."""

import glob
import os
from fnmatch import fnmatch
from typing import Any

from ganrun.errors import UserError
from ganrun.storage.folder import Folder
from ganrun.storage.place import Entry, Storage
from ganrun.storage.retry import PATIENCE_SECONDS
from ganrun.storage.s3 import S3, filesystem

__all__ = ["PATIENCE_SECONDS", "Entry", "Folder", "Storage", "check_rights", "for_ray", "matching", "open_storage"]


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
    """URIs that a glob names, sorted; in a bucket the signs may stand in the last part only."""
    if not pattern.startswith("s3://"):
        return sorted(glob.glob(pattern))
    parent, _, last = pattern.rpartition("/")
    return [f"{parent}/{name}" for name in open_storage(parent).list() if fnmatch(name, last)]


def check_rights(storage: Storage, field: str) -> None:
    """Puts, reads back, lists and deletes a small object; `field` is what the message calls the place.

    Raises:
        UserError: one of these is not allowed; the message says which.
    """
    name, right = f".write-test-{os.getpid()}", "write to"
    try:
        storage.write(name, b"ganrun")
        right = "read from"
        storage.read(name)
        right = "list"
        storage.list()
        right = "delete in"
        storage.delete(name)
    except OSError as error:
        raise UserError(
            f"{field}: cannot {right} {storage.uri} ({error.strerror or error}); "
            "choose a place with read, write, list and delete rights"
        ) from error
