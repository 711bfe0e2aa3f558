"""What an attempt begins with: its number, the checkpoint that it goes on from, and the hyper-parameters then."""

import json
from dataclasses import replace
from typing import NamedTuple

import torch.distributed as dist

from ganrun.config.load import parse
from ganrun.config.schema import Config
from ganrun.config.tunable import scheduled, value_of, with_values
from ganrun.run_folder.layout import RunFolder
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training import checkpoint
from ganrun.worker.transitions import Change, Exploit, Rollback


class Start(NamedTuple):
    """What a start of the workers begins with."""

    attempt: int
    generation: int
    checkpoint: str | None
    """Its name; None before the first."""
    damaged: list[str]
    """What is wrong with newer ones."""
    donor: str | None = None
    """URI of the run whose checkpoint it is, if that is another."""


def begin(
    folder: RunFolder, slots: Slots, change: Change | None
) -> tuple[Start, checkpoint.Progress, checkpoint.Files]:
    """A new attempt, the run's own progress, and the checkpoint to go on from: rank 0 decides for all, and has read
    it for that."""
    found: list[tuple[Start, checkpoint.Progress] | None] = [None]
    files: checkpoint.Files = {}
    if slots.rank == 0:
        generation = change.generation if isinstance(change, Rollback) else folder.generation()
        attempt = folder.begin_attempt(generation, after=change.attempt if change else None)
        name, files, damaged = checkpoint.newest_whole(folder)
        start, own = Start(attempt, generation, name, damaged), _own_progress(folder, files)
        if isinstance(change, Exploit) and change.number > own.exploit:
            files = _donated(change)
            start = start._replace(checkpoint=change.checkpoint, donor=change.donor)
        found = [(start, own)]
    if slots.workers > 1:
        dist.broadcast_object_list(found, 0)
    assert found[0] is not None
    return *found[0], files


def config_now(config: Config, files: checkpoint.Files, folder: RunFolder, exploit: Exploit | None) -> Config:
    """The config that an attempt begins with: hyper-parameters move while a run goes on.

    Args:
        config: of the run as it was started.
        files: of the checkpoint that it goes on from.
        folder: of the run.
        exploit: what is taken over now.
    """
    if exploit:
        return with_values(config, exploit.values)
    if config.tune and files:
        live = parse(files["config.yaml"], f"a checkpoint's config.yaml of {folder.storage.uri}")
        return with_values(config, {key: value_of(live, key) for key in config.tune.mutations})
    images = json.loads(files[checkpoint.STATE])["images"] if files else 0
    return with_values(config, scheduled(config, images))


def _own_progress(folder: RunFolder, files: checkpoint.Files) -> checkpoint.Progress:
    """What the run's own checkpoint keeps beside the play, but the best score that `best.json` has.

    A score may have come, or the checkpoint that was the best have failed, after the last one was taken.
    """
    own, best = checkpoint.progress_of(files), folder.pointer("best")
    if best is None or not files:
        return replace(own, best_score=None)
    if best.score is None or best.images > json.loads(files[checkpoint.STATE])["images"]:
        return own  # It is of a state that is given up, and will be played again.
    return replace(own, best_score=best.score)


def _donated(exploit: Exploit) -> checkpoint.Files:
    """The donor's checkpoint.

    Raises:
        RunError: it is damaged or gone.
    """
    return checkpoint.read(open_storage(exploit.donor), f"checkpoints/{exploit.checkpoint}")
