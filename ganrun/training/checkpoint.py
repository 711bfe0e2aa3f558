"""Checkpoints in storage: one directory each, complete or absent.

Files are written to a place never used before, the manifest with their hashes last; only then does `latest.json` point
to it. `state_files.py` says what is in them.
"""

import contextlib
import hashlib
import json
import platform
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

import ganrun
from ganrun.errors import RunError
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import RECORD_BYTES, Storage, TooLargeError
from ganrun.training import checkpoint_format1

FORMAT = 2
"""Of the checkpoints that are written; those of format 1 are read too (checkpoint_format1.py)."""
STATE, MANIFEST = "state.json", "manifest.json"
WRITERS = 4
Files = dict[str, bytes]


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


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
