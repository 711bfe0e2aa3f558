"""Names of data: brace ranges, globs, and what travels with ganrun."""

import glob
from importlib.resources import files
from pathlib import Path

from braceexpand import braceexpand

from ganrun.errors import UserError
from ganrun.storage import exists, matching

COMPUTED = "package:moving-fashion"
"""Data set that `moving_fashion.py` computes from another one."""
PACKAGES = ("fashion-mnist-10k", "fluent-emoji", "heights", "dirac", COMPUTED.removeprefix("package:"))
"""Data sets within the ganrun package, as `data.shards: package:NAME`."""


def expand(entry: str, patience_seconds: float, key: str) -> list[str]:
    """Expand brace ranges, then globs. A place that exists is taken as it is, whatever its name contains.

    Raises:
        UserError: nothing matches, unbalanced braces, or the storage does not answer.
    """
    if not any(sign in entry for sign in "*?[]{}\\"):
        return [entry]
    folder = entry
    try:
        while folder and not exists(folder, patience_seconds):
            folder = folder.rpartition("/")[0]
        patterns = list(braceexpand(entry.removeprefix(folder)))
    except ValueError:
        raise UserError(
            f"{key}: {entry!r} does not exist, and has unbalanced braces; correct the path or the range"
        ) from None
    except OSError as error:
        raise UserError(f"{key}: cannot list {folder}: {error.strerror or error}") from error
    uris = []
    for pattern in patterns:
        if not glob.has_magic(pattern) or exists(folder + pattern, patience_seconds):
            uris.append(folder + pattern)
        elif found := matching(pattern, folder):
            uris += found
        else:
            raise UserError(f"{key}: no file matches {folder + pattern!r}")
    return uris


def package_folder(uri: str, key: str) -> str:
    """Return the folder of a data set that travels with ganrun, `package:NAME`.

    Raises:
        UserError: there is no such data set; the message begins with `key`.
    """
    name = uri.removeprefix("package:")
    if name not in PACKAGES:
        raise UserError(f"{key}: no data set 'package:{name}'; ganrun carries {', '.join(PACKAGES)}")
    return str(Path(str(files("ganrun.data"))) / name)
