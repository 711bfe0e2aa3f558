"""The whole state of a run <-> one directory, complete or absent.

Tensors are in safetensors, the rest in JSON: nothing is ever unpickled. Files are written to a place never
used before, the manifest with their hashes last; only then does `latest.json` point to it.
"""

import contextlib
import hashlib
import json
import platform
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import ganrun
from ganrun.errors import RunError, UserError
from ganrun.run_folder.layout import Pointer, RunFolder, find_checkpoint
from ganrun.storage import RECORD_BYTES, Storage, TooLargeError
from ganrun.training import checkpoint_format1
from ganrun.training.player_step import PlayerStep
from ganrun.training.state import TrainingState

FORMAT = 2
"""Of the checkpoints that are written; those of format 1 are read too (checkpoint_format1.py)."""
STATE, MANIFEST = "state.json", "manifest.json"
WRITERS = 4
Files = dict[str, bytes]


@dataclass(frozen=True)
class RunProgress:
    """What a checkpoint keeps beside the play itself: `best_score`, `seconds` of training so far, and in a search the
    number of the last `exploit` by this trial."""

    best_score: float | None = None
    seconds: float = 0.0
    exploit: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The state of a play at one moment, in host memory: what the play does next does not change it."""

    tensors: dict[str, dict[str, Tensor]]
    texts: Files

    def files(self) -> Files:
        """All files of a checkpoint but the manifest."""
        return {f"{name}.safetensors": bytes(save_tensors(group)) for name, group in self.tensors.items()} | self.texts


def snapshot(
    state: TrainingState, progress: RunProgress, recorder: dict[str, Tensor], spare: Snapshot | None = None
) -> Snapshot:
    """The state of a play. A round waits for no more than the copying.

    Args:
        play: between two rounds.
        progress: beside it.
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
    texts = {STATE: json.dumps(record, indent=1).encode(), "config.yaml": state.config.to_yaml().encode()}
    return Snapshot(_to_host(tensors, spare.tensors if spare else {}), texts)


def restore(state: TrainingState, files: Files) -> RunProgress:
    """Puts a play into the state of a checkpoint.

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
    """What a checkpoint keeps beside the play; of none, nothing yet."""
    record = json.loads(files[STATE]) if files else {}
    return RunProgress(record.get("best_score"), record.get("seconds", 0.0), record.get("exploit", 0))


def write(folder: RunFolder, name: str, files: Files, facts: dict[str, Any]) -> int:
    """Writes a checkpoint, its files side by side and the manifest last; leaves nothing behind if that fails.

    Returns:
        Bytes written.

    Raises:
        OSError: the storage did not take it.
    """
    listed = {file: {"bytes": len(data), "sha256": _hash(data)} for file, data in files.items()}
    versions = {"ganrun": ganrun.__version__, "torch": torch.__version__, "python": platform.python_version()}
    manifest = json.dumps({"format": FORMAT, **facts, "versions": versions, "files": listed}, indent=1).encode()

    def put(file: str) -> None:
        folder.storage.write(f"checkpoints/{name}/{file}", files[file])

    try:
        with ThreadPoolExecutor(WRITERS) as threads:
            list(threads.map(put, files))
        folder.storage.write(f"checkpoints/{name}/{MANIFEST}", manifest)
    except OSError:
        with contextlib.suppress(OSError):  # what stays behind has no manifest, and goes with the old ones
            folder.storage.delete(f"checkpoints/{name}")
        raise
    return sum(len(data) for data in files.values()) + len(manifest)


def read(storage: Storage, directory: str, only: tuple[str, ...] | None = None) -> Files:
    """The files of a checkpoint (or `only` some), each checked against the manifest.

    Raises:
        RunError: it is damaged or not complete; the message says which file.
    """
    try:
        manifest = json.loads(storage.read(f"{directory}/{MANIFEST}", RECORD_BYTES))
        if manifest["format"] not in (1, FORMAT):
            raise RunError(f"{directory}: its format is {manifest['format']}, this ganrun reads 1 and {FORMAT}")
        names = {file: file for file in manifest["files"]}
        if manifest["format"] == 1:
            names = checkpoint_format1.file_names(names)
        files = {}
        for name, file in names.items():
            if "/" in file:
                raise ValueError(f"{file!r} is no name of a file")
            if only is None or name in only:
                files[name] = storage.read(f"{directory}/{file}", manifest["files"][file]["bytes"])
                if _hash(files[name]) != manifest["files"][file]["sha256"]:
                    raise RunError(f"{storage.uri}/{directory}/{file} is damaged: its sha256 is not the manifest's")
        if manifest["format"] == 1 and STATE in files:
            files[STATE] = checkpoint_format1.upgrade_state(files[STATE])
    except FileNotFoundError as error:
        missing = str(error.filename).rpartition("/")[2] if error.filename else "a file"
        raise RunError(f"{storage.uri}/{directory} is not complete: {missing} is missing") from error
    except TooLargeError as error:
        raise RunError(f"{error.filename} is damaged: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{storage.uri}/{directory}/{MANIFEST} is damaged: {error}") from error
    return files


def load_network(storage: Storage, directory: str, name: str, network: nn.Module) -> None:
    """Loads one network (such as `generator_ema`) of a checkpoint.

    Raises:
        RunError: the file is damaged, missing, or does not fit.
    """
    file = f"{name}.safetensors"
    files = read(storage, directory, only=(file,))
    try:
        network.load_state_dict(load_tensors(files[file]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{storage.uri}/{directory}/{file} does not fit the network of the config: {error}") from error


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


def newest_complete(folder: RunFolder) -> tuple[str | None, Files, list[str]]:
    """The newest checkpoint that is whole: its name (None before the first) and files; what is wrong with newer ones.

    Raises:
        RunError: there are checkpoints, and none is whole.
    """
    latest = folder.pointer("latest")
    if latest is None:
        return None, {}, []
    older = [name for name in folder.storage.list("checkpoints") if name < latest.checkpoint]
    faults: list[str] = []
    for name in [latest.checkpoint, *reversed(older)]:
        try:
            return name, read(folder.storage, f"checkpoints/{name}"), faults
        except RunError as error:
            faults.append(str(error))
    raise RunError(f"no checkpoint of {folder.storage.uri} is whole: {'; '.join(faults)}; restore one from a backup")


def delete_old(folder: RunFolder, keep: int, needed: Collection[str] = ()) -> None:
    """Deletes checkpoints before the newest `keep`, but none that a pointer points to and none of those `needed`.

    What a crash left without a manifest is no checkpoint: it goes too, and does not count.
    """
    pointed = {pointer.checkpoint for name in ("latest", "best") if (pointer := folder.pointer(name))}
    before = [name for name in folder.storage.list("checkpoints") if name <= max(pointed, default="")]
    complete = [name for name in before if MANIFEST in folder.storage.list(f"checkpoints/{name}")]
    for name in before:
        if name not in pointed | set(complete[-keep:]) | set(needed):
            folder.storage.delete(f"checkpoints/{name}/{MANIFEST}")  # First: what is left of it is no checkpoint.
            folder.storage.delete(f"checkpoints/{name}")


def make_visible(folder: RunFolder, pointer: Pointer, best: bool) -> None:
    """Points `latest`, and if this one is the best `best`, to a checkpoint that is written."""
    folder.move_pointer("latest", pointer)
    if best:
        folder.move_pointer("best", pointer)


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


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
