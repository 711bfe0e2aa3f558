"""What of a run may be deleted, and how: never while somebody runs it, nor what ganrun did not write."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ganrun.errors import RunError
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.status import live_holder, read_config
from ganrun.storage import Entry, Storage

OWN = ("latest.json", "best.json", "checkpoints", "metrics", "samples", "profile", ".ray", "events", "config.yaml")
"""What ganrun writes into a run; config.yaml last, so that a deletion cut off can be done again."""
OF_SEARCH = ("trials", "schedule.yaml", "scores.png", "samples.png", "hyperparameters.png", "search.jsonl")
"""And into a search; search.jsonl last."""
LEFTOVERS = (".lock", ".part-")
"""How hidden files begin that mean nothing once the rest is deleted."""
PART = ".part-"


@dataclass(frozen=True)
class Orphan:
    """Something in a run's folder that nothing needs: its name there, why it is one, its size."""

    name: str
    reason: str
    bytes: int


def refuse_if_running(storage: Storage) -> None:
    """Raises RunError if somebody runs the run; the message says who, and until when at least."""
    if live := live_holder(storage):
        until = datetime.fromtimestamp(live.expires).strftime("%H:%M:%S")
        raise RunError(
            f"{storage.uri} is running: {live.holder} holds its lease until {until} and renews it while it lives; "
            "stop it first (Ctrl-C or SIGTERM saves a checkpoint); if it was killed, wait until then"
        )


def delete_run(storage: Storage) -> list[str]:
    """Deletes a run, its folder too; the names in it that are not ganrun's, which stay.

    Raises:
        UserError: the folder is not a run's.
        RunError: somebody runs it.
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
    """What crashes left in a run's folder.

    A whole checkpoint beyond the one that `latest.json` names was written by a process that died before it could
    move the pointer. Without a `latest.json` it is kept: somebody may have lost the pointer.

    Raises:
        RunError: a pointer is corrupt, so that nobody knows what is needed.
    """
    objects = storage.objects()
    found = list(_orphaned_checkpoints(storage, objects))
    if any(name.startswith(".ray/") for name in objects):
        found.append(Orphan(".ray", "left by a command that was killed", _bytes(objects, ".ray")))
    within = tuple(f"{orphan.name}/" for orphan in found)
    parts = [name for name in objects if name.rpartition("/")[2].startswith(PART) and not name.startswith(within)]
    return found + [Orphan(name, "a write that was cut off", objects[name].bytes) for name in sorted(parts)]


def delete_orphans(storage: Storage) -> list[Orphan]:
    """Deletes what is orphaned, as it is found while nobody can start the run; what was deleted.

    Raises:
        RunError: somebody runs it, or a pointer is corrupt.
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
            yield Orphan(name, f"newer than {latest.checkpoint}, where the run goes on", _bytes(objects, name))


def _bytes(objects: dict[str, Entry], folder: str) -> int:
    return sum(entry.bytes for name, entry in objects.items() if name.startswith(f"{folder}/"))


@contextlib.contextmanager
def _held(storage: Storage) -> Iterator[None]:
    """Keeps others from starting the run meanwhile."""
    refuse_if_running(storage)
    lease = Lease(storage, on_loss=lambda: None)
    try:
        yield
    finally:
        lease.release()
