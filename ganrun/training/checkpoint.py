"""Checkpoints in storage: one directory each, complete or absent.

Files are written to a place never used before, the manifest with their hashes last; only then does `latest.json` point
to it. Each group of tensors is a safetensors file, plain values are JSON: nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import platform
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import ganrun
from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import RECORD_BYTES, Storage, TooLargeError
from ganrun.training import checkpoint_format1
from ganrun.training.state import Groups, StateDict
from ganrun.training.tensor_files import differences, first_of, parse_tensors

FORMAT = 2
"""Format that is written. Format 1 is read too (checkpoint_format1.py)."""
STATE, CONFIG, MANIFEST = "state.json", "config.yaml", "manifest.json"
WRITERS = 4
ADVICE = "restore it from a backup, or use another checkpoint"
"""What to do about a corrupt file of a checkpoint."""
Files = dict[str, bytes]


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run that a checkpoint keeps beside the training state.

    Attributes:
        best_score: best value of `evaluate.best.metric` so far; None before the first.
        seconds: time spent training.
        exploit: number of this trial's last exploit in a search; 0 before the first.
    """

    best_score: float | None = None
    seconds: float = 0.0
    exploit: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Content of a checkpoint: training state, progress of the run, config as YAML."""

    state: StateDict
    progress: RunProgress
    config: str

    def files(self) -> Files:
        """Serialize into the files of a checkpoint, all but the manifest."""
        tensors = {f"{group}.safetensors": bytes(save_tensors(each)) for group, each in self.state.tensors.items()}
        record = self.state.record | asdict(self.progress)
        return tensors | {STATE: json.dumps(record, indent=1).encode(), CONFIG: self.config.encode()}

    @classmethod
    def parse(cls, files: Files, where: str) -> "Snapshot":
        """Parse the files of a checkpoint.

        Args:
            files: by name.
            where: URI of the checkpoint, for messages.

        Raises:
            RunError: a file is missing or corrupt.
        """
        tensors = parse_groups(files, where)
        try:
            record = json.loads(files[STATE])
            _check_record(record)
            progress = {name: record.pop(name) for name in asdict(RunProgress()) if name in record}
            return cls(StateDict(tensors, record), RunProgress(**progress), files[CONFIG].decode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{where}/{STATE} or {CONFIG} is corrupt: {error}; {ADVICE}") from error


def parse_groups(files: Files, where: str) -> Groups:
    """Parse the safetensors among the files of a checkpoint.

    Args:
        files: by name.
        where: URI of the checkpoint, for messages.

    Raises:
        RunError: one is corrupt.
    """
    tensors: Groups = {}
    for name, data in files.items():
        group, _, kind = name.rpartition(".")
        if kind == "safetensors":
            try:
                tensors[group] = parse_tensors(data, f"{where}/{name}")
            except RunError as error:
                raise RunError(f"{error}; {ADVICE}") from error
    return tensors


def take_snapshot(state: StateDict, progress: RunProgress, config: str, spare: Snapshot | None = None) -> Snapshot:
    """Copy a training state to host memory, so that the next round does not change it.

    Args:
        state: between two rounds.
        progress: of the run.
        config: of the run, as YAML.
        spare: a snapshot that is no longer needed. Its memory is written over: new memory costs more than the copy.
    """
    tensors = _to_host(state.tensors, spare.state.tensors if spare else {})
    return Snapshot(StateDict(tensors, state.record), progress, config)


def write(folder: RunFolder, name: str, files: Files, facts: dict[str, Any]) -> int:
    """Write a checkpoint: its files in parallel, the manifest last. A failed write is deleted.

    Returns:
        Bytes written.

    Raises:
        OSError: the storage refused it.
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
        with contextlib.suppress(OSError):  # Files without a manifest are deleted with old checkpoints.
            folder.storage.delete(f"checkpoints/{name}")
        raise
    return sum(len(data) for data in files.values()) + len(manifest)


def read(storage: Storage, directory: str, only: tuple[str, ...] | None = None) -> Files:
    """Read the files of a checkpoint, or `only` some, each checked against the manifest.

    Raises:
        RunError: the checkpoint is corrupt or incomplete; the message names the file and what to do.
    """
    try:
        return _read(storage, directory, only)
    except RunError as error:
        raise RunError(f"{error}; {ADVICE}") from error


def read_manifest(storage: Storage, directory: str) -> dict[str, Any]:
    """Read the manifest of a checkpoint.

    Raises:
        RunError: it is missing or corrupt, or of another format.
    """
    where = f"{storage.uri}/{directory}/{MANIFEST}"
    try:
        manifest = json.loads(storage.read(f"{directory}/{MANIFEST}", RECORD_BYTES))
        number, images, files = manifest["format"], manifest["images"], manifest["files"]
        if not isinstance(images, int) or not isinstance(files, dict):
            raise TypeError("images is no whole number, or files is no object")
    except FileNotFoundError as error:
        raise RunError(f"{storage.uri}/{directory} is not complete: {MANIFEST} is missing") from error
    except TooLargeError as error:
        raise RunError(f"{where} is corrupt: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{where} is corrupt: {error}") from error
    if number not in (1, FORMAT):
        raise RunError(f"{where}: its format is {number}, this ganrun reads 1 and {FORMAT}")
    return dict(manifest)


def _read(storage: Storage, directory: str, only: tuple[str, ...] | None = None) -> Files:
    """`read`, without advice in its messages."""
    manifest = read_manifest(storage, directory)
    try:
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
                    raise RunError(f"{storage.uri}/{directory}/{file} is corrupt: its sha256 is not the manifest's")
        if manifest["format"] == 1 and STATE in files:
            files[STATE] = checkpoint_format1.upgrade_state(files[STATE])
    except FileNotFoundError as error:
        missing = str(error.filename).rpartition("/")[2] if error.filename else "a file"
        raise RunError(f"{storage.uri}/{directory} is not complete: {missing} is missing") from error
    except TooLargeError as error:
        raise RunError(f"{error.filename} is corrupt: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{storage.uri}/{directory}/{MANIFEST} is corrupt: {error}") from error
    return files


def load_network(storage: Storage, directory: str, name: str, network: nn.Module) -> None:
    """Load one network of a checkpoint, such as `generator_ema`.

    Raises:
        RunError: the file is corrupt, missing, or does not fit.
    """
    file = f"{name}.safetensors"
    where = f"{storage.uri}/{directory}"
    tensors = parse_groups(read(storage, directory, only=(file,)), where).get(name)
    if tensors is None:
        raise RunError(f"{where} is not complete: {file} is missing; {ADVICE}")
    if faults := differences(tensors, network.state_dict()):
        raise RunError(
            f"{where}/{file} is of another network than its config.yaml describes: {first_of(faults)}; "
            "restore both from one checkpoint"
        )
    network.load_state_dict(tensors)


def newest_complete(folder: RunFolder) -> tuple[str | None, Files, list[str]]:
    """Return name (None before the first) and files of the newest intact checkpoint, and the faults of newer ones.

    Raises:
        RunError: there are checkpoints, and none is intact.
    """
    latest = folder.pointer("latest")
    if latest is None:
        return None, {}, []
    older = [name for name in folder.storage.list("checkpoints") if name < latest.checkpoint]
    faults: list[str] = []
    for name in [latest.checkpoint, *reversed(older)]:
        try:
            return name, _read(folder.storage, f"checkpoints/{name}"), faults
        except RunError as error:
            faults.append(str(error))
    raise RunError(f"no checkpoint of {folder.storage.uri} is intact: {'; '.join(faults)}; restore one from a backup")


def delete_old(folder: RunFolder, keep: int, needed: Collection[str] = ()) -> None:
    """Delete all but the newest `keep` checkpoints, those that a pointer points to, and those `needed`.

    Directories that a crash left without a manifest are no checkpoints: they are deleted and not counted.
    """
    pointed = {pointer.checkpoint for name in ("latest", "best") if (pointer := folder.pointer(name))}
    before = [name for name in folder.storage.list("checkpoints") if name <= max(pointed, default="")]
    complete = [name for name in before if MANIFEST in folder.storage.list(f"checkpoints/{name}")]
    for name in before:
        if name not in pointed | set(complete[-keep:]) | set(needed):
            folder.storage.delete(f"checkpoints/{name}/{MANIFEST}")  # First: without it, the rest is no checkpoint.
            folder.storage.delete(f"checkpoints/{name}")


def make_visible(folder: RunFolder, pointer: Pointer, best: bool) -> None:
    """Point `latest`, and `best` if it is the best, to a complete checkpoint."""
    folder.move_pointer("latest", pointer)
    if best:
        folder.move_pointer("best", pointer)


def _check_record(record: Any) -> None:
    """Check the plain values of a checkpoint.

    Raises:
        TypeError, KeyError: a value is missing or of another type.
    """
    needed = {"images": int, "rollback_count": int, "recorded": list}
    others = {"suspected": dict, "best_score": int | float | None, "seconds": int | float, "exploit": int}
    for name, kind in (needed | others).items():
        if (name in needed or name in record) and not isinstance(record[name], kind):
            raise TypeError(f"{name} cannot be {str(record[name])[:50]!r}")


def _to_host(groups: Groups, spare: Groups) -> Groups:
    """Copy tensors to host memory, from a GPU to pinned memory. safetensors needs separate copies of tied weights."""
    gpu = any(tensor.is_cuda for group in groups.values() for tensor in group.values())

    def copy(group: str, key: str, value: Tensor) -> Tensor:
        memory = spare.get(group, {}).get(key)
        if memory is None or memory.shape != value.shape or memory.dtype != value.dtype:
            memory = torch.empty(value.shape, dtype=value.dtype, pin_memory=gpu)
        return memory.copy_(value.detach(), non_blocking=True)

    copies = {group: {key: copy(group, key, value) for key, value in each.items()} for group, each in groups.items()}
    if gpu:
        torch.cuda.current_stream().synchronize()
    return copies


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
