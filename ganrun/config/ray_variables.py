"""Variables of Ray that a user sets. A variable that is set but empty counts as unset. Imports no ray."""

import os
import sys

from ganrun.errors import UserError

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket."""
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Longest path of a socket below the folder of a local Ray's sessions."""
LONGEST_FOLDER = SOCKET_BYTES - len(SOCKET)
FALLBACK = "/tmp"


def cluster_address() -> str | None:
    """Return the cluster that RAY_ADDRESS names; None for a Ray on this machine (unset, empty or `local`)."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def session_folder() -> str:
    """Return the folder for the sessions of a local Ray: RAY_TMPDIR, else TMPDIR if short enough, else /tmp.

    Raises:
        UserError: RAY_TMPDIR is too long for the sockets of Ray, or TMPDIR is and /tmp cannot be written.
    """
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = os.path.abspath(os.environ.get(name) or FALLBACK)
    if len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return folder
    if name == "TMPDIR" and os.access(FALLBACK, os.W_OK | os.X_OK):
        return FALLBACK
    raise UserError(
        f"{name}: {folder!r} is {len(os.fsencode(folder))} bytes long, and Ray keeps sockets below it, whose paths may "
        f"have {SOCKET_BYTES}; set RAY_TMPDIR to a folder of at most {LONGEST_FOLDER} bytes"
    )
