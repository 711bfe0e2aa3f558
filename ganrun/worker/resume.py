"""Start of an attempt: its number, the checkpoint that it resumes from, and its hyper-parameters."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.config.load import parse
from ganrun.config.run_spec import RunSpec
from ganrun.config.tunable import scheduled, value_of, with_values
from ganrun.errors import UserError
from ganrun.run_folder.run_folder import RunFolder, find_checkpoint
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry.messages import Exploit
from ganrun.training import checkpoint
from ganrun.training.checkpoint import RunProgress, Snapshot
from ganrun.training.state import Groups, TrainingState
from ganrun.training.tensor_files import differences, first_of
from ganrun.worker.broadcast import call_on_rank_0
from ganrun.worker.transitions import Rollback, Transition


class AttemptStart(NamedTuple):
    """Number, noise and checkpoint of an attempt."""

    attempt: int
    rollback_count: int
    checkpoint: str | None
    """Name of the checkpoint that it resumes from; None before the first."""
    damaged: list[str]
    """Faults of newer checkpoints, which were skipped."""
    donor: str | None = None
    """URI of the run that the checkpoint is taken from at an exploit."""


def begin_attempt(
    folder: RunFolder, slots: Slots, device: torch.device, transition: Transition | None
) -> tuple[AttemptStart, RunProgress, Snapshot | None]:
    """Begin a new attempt. Rank 0 decides and reads; every rank receives the same bits.

    Args:
        folder: of the run.
        slots: of this rank.
        device: where checkpoints are broadcast.
        transition: ended the attempt before; None after a start of the workers.

    Returns:
        The attempt, the run's own progress, and the checkpoint to resume from: the run's or a donor's, None before
        the first.

    Raises:
        RunError: a checkpoint is corrupt or gone; on every rank.
        OSError: the storage is away; on every rank.
    """

    def begin() -> tuple[tuple[AttemptStart, RunProgress, Snapshot | None], Groups]:
        start, own, snapshot = _begin(folder, transition)
        if snapshot is None:
            return (start, own, None), {}
        return (start, own, _with_tensors(snapshot, {})), snapshot.state.tensors

    (start, own, snapshot), tensors = call_on_rank_0(begin, slots, device)
    return start, own, snapshot and _with_tensors(snapshot, tensors)


def load_first_weights(state: TrainingState, start_from: str | None, of: str | None) -> list[str]:
    """Load what a run takes from others at its beginning: `load_start_from`, then `load_generator`, see there."""
    unfit = load_start_from(state, start_from)
    if of:
        load_generator(state, of)
    return unfit


def load_start_from(state: TrainingState, where: str | None) -> list[str]:
    """Load the weights of `run.start_from`, if set, and those of the EMA into a new training state. Rank 0 reads.

    Returns:
        Tensors that keep their first values, in words: they are missing there, or of another shape.

    Raises:
        UserError: there is no such checkpoint, or nothing of it fits; on every rank.
        RunError: it is corrupt; on every rank.
    """
    if not where:
        return []
    networks = state.game.networks | {f"{name}_ema": ema.network for name, ema in state.ema.items()}

    def read() -> tuple[None, Groups]:
        storage, directory = find_checkpoint(where)
        files = checkpoint.read(storage, directory, only=tuple(f"{name}.safetensors" for name in networks))
        return None, checkpoint.parse_groups(files, f"{storage.uri}/{directory}")

    _, theirs = call_on_rank_0(read, state.slots, state.device)
    mine = _by_full_name({name: network.state_dict() for name, network in networks.items()})
    there = _by_full_name(theirs)
    fitting = [name for name, tensor in mine.items() if name in there and there[name].shape == tensor.shape]
    unfit = differences({name: there[name] for name in there if name in mine}, mine)
    if not any(mine[name].numel() > 1 for name in fitting):  # A counter fits every network.
        raise UserError(
            f"run.start_from: nothing in {where} fits the networks of this config: {first_of(unfit)}; set model.* as "
            "in that run"
        )
    for name in fitting:
        mine[name].copy_(there[name])
    return unfit


def load_generator(state: TrainingState, where: str) -> None:
    """Load the generator of another run, its EMA if there is one, into that of a new training state. Rank 0 reads.

    Raises:
        UserError: there is no such checkpoint, or its generator is another; on every rank.
        RunError: it is corrupt; on every rank.
    """

    def read() -> tuple[None, Groups]:
        storage, directory = find_checkpoint(where)
        names = ("generator_ema.safetensors", "generator.safetensors")
        files = checkpoint.read(storage, directory, only=names)
        groups = checkpoint.parse_groups(files, f"{storage.uri}/{directory}")
        return None, {"generator": groups.get("generator_ema") or groups.get("generator") or {}}

    _, found = call_on_rank_0(read, state.slots, state.device)
    mine = state.game.networks["generator"].state_dict()
    if unfit := differences(found["generator"], mine):
        raise UserError(
            f"objective.of: the generator of {where} is another than that of this config: {first_of(unfit)}; set "
            "model.* and data.* as in that run"
        )
    for name, tensor in mine.items():
        tensor.copy_(found["generator"][name])


def current_config(config: RunSpec, snapshot: Snapshot | None, folder: RunFolder, exploit: Exploit | None) -> RunSpec:
    """Return the config of an attempt: hyper-parameters change during a run.

    Args:
        config: of the run as it was started.
        snapshot: the checkpoint that it resumes from.
        folder: of the run.
        exploit: the one that this attempt begins with, if any.
    """
    if exploit:
        return with_values(config, exploit.values)
    if config.tune and snapshot:
        live = parse(snapshot.config.encode(), f"a checkpoint's config.yaml of {folder.storage.uri}")
        return with_values(config, {key: value_of(live, key) for key in config.tune.mutations})
    return with_values(config, scheduled(config, _images(snapshot)))


def _begin(folder: RunFolder, transition: Transition | None) -> tuple[AttemptStart, RunProgress, Snapshot | None]:
    """`begin_attempt` on rank 0."""
    rollback_count = transition.rollback_count if isinstance(transition, Rollback) else folder.rollback_count()
    attempt = folder.begin_attempt(rollback_count, after=transition.attempt if transition else None)
    name, files, damaged = checkpoint.newest_complete(folder)
    snapshot = Snapshot.parse(files, f"{folder.storage.uri}/checkpoints/{name}") if files else None
    start, own = AttemptStart(attempt, rollback_count, name, damaged), _own_progress(folder, snapshot)
    if isinstance(transition, Exploit) and transition.number > own.exploit:
        directory = f"checkpoints/{transition.checkpoint}"
        files = checkpoint.read(open_storage(transition.donor), directory)
        start = start._replace(checkpoint=transition.checkpoint, donor=transition.donor)
        return start, own, Snapshot.parse(files, f"{transition.donor}/{directory}")
    return start, own, snapshot


def _own_progress(folder: RunFolder, snapshot: Snapshot | None) -> RunProgress:
    """Progress of the run's own checkpoint, with the best score that `best.json` has.

    A score may have come, or the checkpoint that was the best have failed, after the last one was taken.
    """
    own, best = snapshot.progress if snapshot else RunProgress(), folder.pointer("best")
    if best is None or snapshot is None:
        return replace(own, best_score=None)
    if best.score is None or best.images > _images(snapshot):
        return own  # Of a state that was discarded and will be trained again.
    return replace(own, best_score=best.score)


def _by_full_name(groups: Groups) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def _images(snapshot: Snapshot | None) -> int:
    return int(snapshot.state.record["images"]) if snapshot else 0


def _with_tensors(snapshot: Snapshot, tensors: Groups) -> Snapshot:
    return replace(snapshot, state=snapshot.state._replace(tensors=tensors))
