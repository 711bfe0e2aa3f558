"""Flight recorder of torch.distributed: the last collectives of each rank, written to the run's folder on a time-out.

The files of all ranks together tell who waited for whom: a rank that hangs has not begun the collective that the others
wait in. gloo raises an error after a time-out. NCCL's watchdog ends the process; it writes the record to this machine
first, and the workers of the next attempt move it to the run's folder.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from ganrun.data.cache import cache_folder
from ganrun.errors import RunError
from ganrun.run_folder.run_folder import RunFolder

ENTRIES = 2_000
"""Collectives that are kept."""
FOLDER = "collectives"


def switch_on(uri: str) -> None:
    """Record the collectives of process groups made from now on, for the run in the folder `uri`."""
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(ENTRIES))
    with contextlib.suppress(OSError):  # Without a disk to write to, only NCCL's records are lost.
        _local(uri).mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCH_FR_DUMP_TEMP_FILE", f"{_local(uri)}/rank")


def move_records(folder: RunFolder, attempt: int) -> None:
    """Move the records that NCCL has written on this machine to the run's folder, before attempt number `attempt`."""
    for path in sorted(_local(folder.storage.uri).glob("rank*")):
        mine = path.with_name(f"{os.getpid()}-{path.name}")
        with contextlib.suppress(OSError):  # Another worker of this machine has moved it, or the storage is away.
            path.rename(mine)
            folder.storage.write(f"{FOLDER}/{attempt - 1:04d}-{path.name}.pickle", mine.read_bytes())
            mine.unlink()


@contextlib.contextmanager
def recorded(folder: RunFolder, attempt: int, rank: int) -> Iterator[None]:
    """Write the record of this rank if a collective within the block times out, and name the file in the error.

    Raises:
        RuntimeError: a collective timed out.
    """
    try:
        yield
    except RuntimeError as error:
        dump = getattr(torch._C._distributed_c10d, "_dump_fr_trace_json", None)
        if dump is None or not dist.is_initialized() or isinstance(error, RunError) or not _timed_out(error):
            raise
        name = f"{FOLDER}/{attempt:04d}-rank{rank}.json"
        with contextlib.suppress(OSError):
            folder.storage.write(name, dump())
        where = f"{folder.storage.uri}/{name}"
        raise RuntimeError(f"a collective timed out; the last ones of rank {rank} are in {where}") from error


def _timed_out(error: RuntimeError) -> bool:
    text = str(error).lower()
    return "timed out" in text or "timeout" in text


def _local(uri: str) -> Path:
    """Return the folder on this machine for the records of NCCL."""
    return cache_folder().parent / FOLDER / uri.replace("/", "_")
