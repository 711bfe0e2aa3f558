"""What an attempt begins with: its number, the checkpoint that it resumes from, and the hyper-parameters then."""

import json
from dataclasses import replace
from typing import NamedTuple

from ganrun.config.load import parse
from ganrun.config.run_spec import RunSpec
from ganrun.config.tunable import scheduled, value_of, with_values
from ganrun.run_folder.run_folder import RunFolder
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training import checkpoint
from ganrun.training.state_files import RunProgress, progress_of
from ganrun.worker.transitions import Exploit, Rollback, Transition


class AttemptStart(NamedTuple):
    """What a start of the workers begins with."""

    attempt: int
    rollback_count: int
    checkpoint: str | None
    """Its name; None before the first."""
    damaged: list[str]
    """What is wrong with newer ones."""
    donor: str | None = None
    """URI of the run whose checkpoint it is, if that is another."""


def begin_attempt(
    folder: RunFolder, slots: Slots, transition: Transition | None
) -> tuple[AttemptStart, RunProgress, checkpoint.Files]:
    """A new attempt, the run's own progress, and the checkpoint to go on from: rank 0 decides for all, and has read
    it for that."""
    decided: tuple[AttemptStart, RunProgress] | None = None
    files: checkpoint.Files = {}
    if slots.rank == 0:
        rollback_count = transition.rollback_count if isinstance(transition, Rollback) else folder.rollback_count()
        attempt = folder.begin_attempt(rollback_count, after=transition.attempt if transition else None)
        name, files, damaged = checkpoint.newest_complete(folder)
        start, own = AttemptStart(attempt, rollback_count, name, damaged), _own_progress(folder, files)
        if isinstance(transition, Exploit) and transition.number > own.exploit:
            files = _donated(transition)
            start = start._replace(checkpoint=transition.checkpoint, donor=transition.donor)
        decided = start, own
    decided = slots.from_rank_0(decided)
    assert decided is not None
    return *decided, files


def current_config(config: RunSpec, files: checkpoint.Files, folder: RunFolder, exploit: Exploit | None) -> RunSpec:
    """The config that an attempt begins with: hyper-parameters move while a run goes on.

    Args:
        config: of the run as it was started.
        files: of the checkpoint that it resumes from.
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


def _own_progress(folder: RunFolder, files: checkpoint.Files) -> RunProgress:
    """What the run's own checkpoint keeps beside the training state, but the best score that `best.json` has.

    A score may have come, or the checkpoint that was the best have failed, after the last one was taken.
    """
    own, best = progress_of(files), folder.pointer("best")
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
