"""Deletion of runs and orphaned files. Refused while the run is live; files that ganrun did not write are kept."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ganrun.errors import RunError
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.status import live_holder, read_config
from ganrun.storage import Entry, Storage

OWN = (
    *("latest.json", "best.json", "checkpoints", "metrics", "samples", "profile", "collectives"),
    *("tensorboard", "wandb", "trackers.json", ".ray", "events", "config.yaml"),
)
"""Names in a run's folder, in order of deletion: config.yaml last, so that an interrupted deletion can be repeated."""
OF_SEARCH = ("trials", "schedule.yaml", "scores.png", "samples.png", "hyperparameters.png", "search.jsonl")
"""Further names in the folder of a search; search.jsonl last."""
LEFTOVERS = (".lock", ".part-")
"""Prefixes of hidden files without meaning once the rest is deleted."""
PART = ".part-"
"""Prefix of files that are being written."""


@dataclass(frozen=True)
class Orphan:
    """File or directory in a run's folder that nothing needs: name, reason, size."""

    name: str
    reason: str
    bytes: int


def refuse_if_running(storage: Storage) -> None:
    """Raise RunError if the run's lease is held; the message names the holder and the expiry."""
    if live := live_holder(storage):
        until = datetime.fromtimestamp(live.expires).strftime("%H:%M:%S")
        raise RunError(
            f"{storage.uri} is running: {live.holder} holds its lease until {until} and renews it while it lives; "
            "stop it first (Ctrl-C or SIGTERM saves a checkpoint); if it was killed, wait until then"
        )


def delete_run(storage: Storage) -> list[str]:
    """Delete a run. Return the names in its folder that ganrun did not write: they are kept, and the folder with them.

    Raises:
        UserError: the folder is no run.
        RunError: the run is live.
    """
    read_config(storage)
    with _held(storage):
        for name in (*(OF_SEARCH if OF_SEARCH[-1] in storage.list() else ()), *OWN):
            storage.delete(name)
    tops = {name.partition("/")[0] for name in storage.objects()}
    foreign = sorted(name for name in tops | set(storage.list()) if not name.startswith(LEFTOVERS))
    if not foreign:
        storage.delete("")
    return foreign


def orphans(storage: Storage) -> list[Orphan]:
    """Return what crashes left in a run's folder.

    A complete checkpoint newer than that of `latest.json` is an orphan: its process died before it moved the pointer.
    Without a `latest.json` it is kept, since the pointer may have been lost.

    Raises:
        RunError: a pointer is corrupt, so that the needed checkpoints are unknown.
    """
    objects = storage.objects()
    found = list(_orphaned_checkpoints(storage, objects))
    if any(name.startswith(".ray/") for name in objects):
        found.append(Orphan(".ray", "left by a command that was killed", _bytes(objects, ".ray")))
    within = tuple(f"{orphan.name}/" for orphan in found)
    parts = [name for name in objects if name.rpartition("/")[2].startswith(PART) and not name.startswith(within)]
    return found + [Orphan(name, "an interrupted write", objects[name].bytes) for name in sorted(parts)]


def delete_orphans(storage: Storage) -> list[Orphan]:
    """Delete the orphans and return them. The lease is held meanwhile, so that the run cannot start.

    Raises:
        RunError: the run is live, or a pointer is corrupt.
    """
    with _held(storage):
        found = orphans(storage)
        for orphan in found:
            storage.delete(orphan.name)
    return found


def _orphaned_checkpoints(storage: Storage, objects: dict[str, Entry]) -> Iterator[Orphan]:
    folder = RunFolder(storage)
    latest, best = folder.pointer("latest"), folder.pointer("best")
    pointed = {pointer.checkpoint for pointer in (latest, best) if pointer}
    for checkpoint in storage.list("checkpoints"):
        name = f"checkpoints/{checkpoint}"
        if checkpoint in pointed:
            continue
        if f"{name}/manifest.json" not in objects:
            yield Orphan(name, "incomplete: it has no manifest.json", _bytes(objects, name))
        elif latest and checkpoint > latest.checkpoint:
            yield Orphan(name, f"newer than {latest.checkpoint}, where the run resumes", _bytes(objects, name))


def _bytes(objects: dict[str, Entry], folder: str) -> int:
    return sum(entry.bytes for name, entry in objects.items() if name.startswith(f"{folder}/"))


@contextlib.contextmanager
def _held(storage: Storage) -> Iterator[None]:
    """Hold the lease of the run, so that no other process can start it."""
    refuse_if_running(storage)
    lease = Lease(storage, on_loss=lambda: None)
    try:
        yield
    finally:
        lease.release()
