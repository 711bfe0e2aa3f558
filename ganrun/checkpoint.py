"""The whole state of a run <-> one directory, complete or absent.

Tensors are in safetensors, the rest in JSON: nothing is ever unpickled. Files are written to a place never
used before, the manifest with their hashes last; only then does `latest.json` point to it.
"""

import contextlib
import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import ganrun
from ganrun.errors import RunError, UserError
from ganrun.play import Play
from ganrun.run_folder import Pointer, RunFolder, find_checkpoint
from ganrun.storage import Storage
from ganrun.turn import Seat

FORMAT = 1
STATE, MANIFEST = "state.json", "manifest.json"
Files = dict[str, bytes]


@dataclass(frozen=True)
class Progress:
    """What a checkpoint keeps beside the play itself: `best_score`, `seconds` of training so far."""

    best_score: float | None = None
    seconds: float = 0.0


def snapshot(play: Play, progress: Progress, recorder: dict[str, Tensor]) -> Files:
    """All files of a checkpoint but the manifest; `recorder` is the recorder's state."""
    tensors = {name: network.state_dict() for name, network in play.game.networks.items()}
    tensors |= {f"{name}_average": average.network.state_dict() for name, average in play.averages.items()}
    tensors |= {f"optimizer_{seat.player.name}": _optimizer_state(seat) for seat in play.seats}
    tensors |= {name: tracker.state_dict() for name, tracker in play.game.trackers.items()}
    tensors["recorder"] = recorder
    state = {
        "images": play.images,
        "generation": play.generation,
        "recorded": play.recorder.names,
        "best_score": progress.best_score,
        "seconds": progress.seconds,
    }
    files = {f"{name}.safetensors": _to_bytes(group) for name, group in tensors.items()}
    files[STATE] = json.dumps(state, indent=1).encode()
    files["config.yaml"] = play.config.to_yaml().encode()
    return files


def restore(play: Play, files: Files) -> Progress:
    """Puts a play into the state of a checkpoint.

    Raises:
        RunError: the networks or optimizers are not those of the config.
    """
    try:
        for name, network in play.game.networks.items():
            network.load_state_dict(load_tensors(files[f"{name}.safetensors"]))
        for name, average in play.averages.items():
            average.network.load_state_dict(load_tensors(files[f"{name}_average.safetensors"]))
        for seat in play.seats:
            _load_optimizer(seat, load_tensors(files[f"optimizer_{seat.player.name}.safetensors"]))
        for name, tracker in play.game.trackers.items():
            tracker.load_state_dict(load_tensors(files[f"{name}.safetensors"]))
        state = json.loads(files[STATE])
        play.recorder.load(state["recorded"], load_tensors(files["recorder.safetensors"]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(f"the checkpoint does not fit the networks of this config: {error}") from error
    play.images, play.generation = state["images"], state["generation"]
    return Progress(state["best_score"], state["seconds"])


def write(folder: RunFolder, name: str, files: Files, facts: dict[str, Any]) -> None:
    """Writes a checkpoint, manifest last; leaves nothing behind if that fails.

    Raises:
        OSError: the storage did not take it.
    """
    listed = {file: {"bytes": len(data), "sha256": _hash(data)} for file, data in files.items()}
    versions = {"ganrun": ganrun.__version__, "torch": torch.__version__, "python": platform.python_version()}
    manifest = {"format": FORMAT, **facts, "versions": versions, "files": listed}
    try:
        for file, data in files.items():
            folder.storage.write(f"checkpoints/{name}/{file}", data)
        folder.storage.write(f"checkpoints/{name}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    except OSError:
        with contextlib.suppress(OSError):  # what stays behind has no manifest, and goes with the old ones
            folder.storage.delete(f"checkpoints/{name}")
        raise


def read(storage: Storage, directory: str, only: tuple[str, ...] | None = None) -> Files:
    """The files of a checkpoint (or `only` some), each checked against the manifest.

    Raises:
        RunError: it is damaged or not complete; the message says which file.
    """
    try:
        manifest = json.loads(storage.read(f"{directory}/{MANIFEST}"))
        if manifest["format"] != FORMAT:
            raise RunError(f"{directory}: its format is {manifest['format']}, this ganrun reads {FORMAT}")
        files = {}
        for file, listed in manifest["files"].items():
            if only is None or file in only:
                files[file] = storage.read(f"{directory}/{file}")
                if _hash(files[file]) != listed["sha256"]:
                    raise RunError(f"{storage.uri}/{directory}/{file} is damaged: its sha256 is not the manifest's")
    except FileNotFoundError as error:
        missing = str(error.filename).rpartition("/")[2] if error.filename else "a file"
        raise RunError(f"{storage.uri}/{directory} is not complete: {missing} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{storage.uri}/{directory}/{MANIFEST} is damaged: {error}") from error
    return files


def load_network(storage: Storage, directory: str, name: str, network: nn.Module) -> None:
    """Loads one network (such as `generator_average`) of a checkpoint.

    Raises:
        RunError: the file is damaged, missing, or does not fit.
    """
    file = f"{name}.safetensors"
    files = read(storage, directory, only=(file,))
    try:
        network.load_state_dict(load_tensors(files[file]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{storage.uri}/{directory}/{file} does not fit the network of the config: {error}") from error


def begin_from(play: Play, where: str) -> list[str]:
    """Gives a play that has not begun the weights of another run's checkpoint, averages too.

    Returns:
        The tensors that keep their first values since they are not there, or of another shape.

    Raises:
        UserError: there is no such checkpoint, or nothing of it fits.
        RunError: it is damaged.
    """
    storage, directory = find_checkpoint(where)
    files = read(storage, directory)
    networks = dict(play.game.networks) | {f"{name}_average": each.network for name, each in play.averages.items()}
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


def newest_whole(folder: RunFolder) -> tuple[str | None, list[str]]:
    """The name of the newest checkpoint that is whole (None before the first), and what is wrong with newer ones.

    Raises:
        RunError: there are checkpoints, and none is whole.
    """
    latest = folder.pointer("latest")
    if latest is None:
        return None, []
    older = [name for name in folder.storage.list("checkpoints") if name < latest.checkpoint]
    faults = []
    for name in [latest.checkpoint, *reversed(older)]:
        try:
            read(folder.storage, f"checkpoints/{name}")
        except RunError as error:
            faults.append(str(error))
        else:
            return name, faults
    raise RunError(f"no checkpoint of {folder.storage.uri} is whole: {'; '.join(faults)}; restore one from a backup")


def delete_old(folder: RunFolder, keep: int) -> None:
    """Deletes checkpoints that came before the newest `keep`, but never one that a pointer points to.

    What a crash left without a manifest is no checkpoint: it goes too, and does not count.
    """
    pointed = {pointer.checkpoint for name in ("latest", "best") if (pointer := folder.pointer(name))}
    before = [name for name in folder.storage.list("checkpoints") if name <= max(pointed, default="")]
    complete = [name for name in before if MANIFEST in folder.storage.list(f"checkpoints/{name}")]
    for name in before:
        if name not in pointed | set(complete[-keep:]):
            folder.storage.delete(f"checkpoints/{name}")


def make_visible(folder: RunFolder, pointer: Pointer, best: bool) -> None:
    """Points `latest`, and if this one is the best `best`, to a checkpoint that is written."""
    folder.move_pointer("latest", pointer)
    if best:
        folder.move_pointer("best", pointer)


def _optimizer_state(seat: Seat) -> dict[str, Tensor]:
    state = seat.optimizer.state
    return {
        f"{name}.{key}": value
        for name, parameter in seat.parameters.items()
        for key, value in state.get(parameter, {}).items()
    }


def _load_optimizer(seat: Seat, tensors: dict[str, Tensor]) -> None:
    for name, parameter in seat.parameters.items():
        if f"{name}.step" not in tensors:
            continue  # It never had a gradient.
        # Moments in the parameter's own layout: the fused kernel walks both in memory order.
        seat.optimizer.state[parameter] = {
            key: torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"{name}.{key}"])
            for key in ("exp_avg", "exp_avg_sq")
        } | {"step": tensors[f"{name}.step"].to(parameter.device)}


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    # Copies, since safetensors takes no two names for one storage (tied weights).
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    return bytes(save_tensors(copies))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
