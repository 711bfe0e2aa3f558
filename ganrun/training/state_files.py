"""Training state <-> the files of a checkpoint.

Tensors are in safetensors, the rest in JSON: nothing is ever unpickled.
"""

import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ganrun.errors import RunError, UserError
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.training.checkpoint import STATE, Files, read
from ganrun.training.player_step import PlayerStep
from ganrun.training.state import TrainingState


@dataclass(frozen=True)
class RunProgress:
    """What a checkpoint keeps beside the training state: `best_score`, `seconds` of training so far, and in a search
    the number of the last `exploit` by this trial."""

    best_score: float | None = None
    seconds: float = 0.0
    exploit: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A training state at one moment, in host memory: what training does next does not change it."""

    tensors: dict[str, dict[str, Tensor]]
    texts: Files

    def files(self) -> Files:
        """All files of a checkpoint but the manifest."""
        return {f"{name}.safetensors": bytes(save_tensors(group)) for name, group in self.tensors.items()} | self.texts


def take_snapshot(
    state: TrainingState, progress: RunProgress, config: str, recorder: dict[str, Tensor], spare: Snapshot | None = None
) -> Snapshot:
    """The training state, copied to host memory: a round waits for no more.

    Args:
        state: between two rounds.
        progress: beside it.
        config: of the run, as YAML.
        recorder: the recorder's state.
        spare: one that nobody needs any more, whose memory is written over: new memory costs more than the copying.
    """
    tensors = {name: network.state_dict() for name, network in state.game.networks.items()}
    tensors |= {f"{name}_ema": ema.network.state_dict() for name, ema in state.ema.items()}
    tensors |= {
        f"optimizer_{player_step.player.name}": _optimizer_state(player_step) for player_step in state.player_steps
    }
    tensors |= {name: tracker.state_dict() for name, tracker in state.game.trackers.items()}
    tensors["recorder"] = recorder
    record = {
        "images": state.images,
        "rollback_count": state.rollback_count,
        "recorded": state.recorder.names,
        "suspected": state.collapse_detector.streaks,
        "best_score": progress.best_score,
        "seconds": progress.seconds,
        "exploit": progress.exploit,
    }
    texts = {STATE: json.dumps(record, indent=1).encode(), "config.yaml": config.encode()}
    return Snapshot(_to_host(tensors, spare.tensors if spare else {}), texts)


def restore(state: TrainingState, files: Files) -> RunProgress:
    """Puts a training state into that of a checkpoint.

    Raises:
        RunError: the networks or optimizers are not those of the config.
    """
    try:
        for name, network in state.game.networks.items():
            network.load_state_dict(load_tensors(files[f"{name}.safetensors"]))
        for name, ema in state.ema.items():
            ema.network.load_state_dict(load_tensors(files[f"{name}_ema.safetensors"]))
        for player_step in state.player_steps:
            _load_optimizer(player_step, load_tensors(files[f"optimizer_{player_step.player.name}.safetensors"]))
        for name, tracker in state.game.trackers.items():
            tracker.load_state_dict(load_tensors(files[f"{name}.safetensors"]))
        record = json.loads(files[STATE])
        state.recorder.load(record["recorded"], load_tensors(files["recorder.safetensors"]))
        state.collapse_detector.streaks |= record.get("suspected", {})
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(f"the checkpoint does not fit the networks of this config: {error}") from error
    state.images, state.rollback_count = record["images"], record["rollback_count"]
    return progress_of(files)


def progress_of(files: Files) -> RunProgress:
    """What a checkpoint keeps beside the training state; of none, nothing yet."""
    record = json.loads(files[STATE]) if files else {}
    return RunProgress(record.get("best_score"), record.get("seconds", 0.0), record.get("exploit", 0))


def load_weights_from(state: TrainingState, where: str) -> list[str]:
    """Gives a training state that has not begun the weights of another run's checkpoint, those of the EMA too.

    Returns:
        The tensors that keep their first values since they are not there, or of another shape.

    Raises:
        UserError: there is no such checkpoint, or nothing of it fits.
        RunError: it is damaged.
    """
    storage, directory = find_checkpoint(where)
    files = read(storage, directory)
    networks = dict(state.game.networks) | {f"{name}_ema": each.network for name, each in state.ema.items()}
    unfit, fitting = [], 0
    for name, network in networks.items():
        theirs = load_tensors(files.get(f"{name}.safetensors", save_tensors({})))
        for key, mine in network.state_dict().items():
            if key in theirs and theirs[key].shape == mine.shape:
                mine.copy_(theirs[key])
                fitting += 1
            else:
                unfit.append(f"{name}.{key}")
    if not fitting:
        raise UserError(f"run.start_from: nothing in {where} fits the networks of this config")
    return unfit


def _optimizer_state(player_step: PlayerStep) -> dict[str, Tensor]:
    record = player_step.optimizer.state
    return {
        f"{name}.{key}": value
        for name, parameter in player_step.parameters.items()
        for key, value in record.get(parameter, {}).items()
    }


def _load_optimizer(player_step: PlayerStep, tensors: dict[str, Tensor]) -> None:
    for name, parameter in player_step.parameters.items():
        if f"{name}.step" not in tensors:
            continue  # It never had a gradient.
        # Moments in the parameter's own layout: the fused kernel walks both in memory order.
        player_step.optimizer.state[parameter] = {
            key: torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"{name}.{key}"])
            for key in ("exp_avg", "exp_avg_sq")
        } | {"step": tensors[f"{name}.step"].to(parameter.device)}


Groups = dict[str, dict[str, Tensor]]


def _to_host(groups: Groups, spare: Groups) -> Groups:
    """Copies, which from a GPU all run before any is waited for. Tied weights become two: safetensors asks for it."""
    gpu = any(tensor.is_cuda for group in groups.values() for tensor in group.values())

    def copy(name: str, key: str, value: Tensor) -> Tensor:
        memory = spare.get(name, {}).get(key)
        if memory is None or memory.shape != value.shape or memory.dtype != value.dtype:
            memory = torch.empty(value.shape, dtype=value.dtype, pin_memory=gpu)
        return memory.copy_(value.detach(), non_blocking=True)

    copies = {name: {key: copy(name, key, value) for key, value in group.items()} for name, group in groups.items()}
    if gpu:
        torch.cuda.current_stream().synchronize()
    return copies
