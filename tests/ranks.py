"""Runs the workers of a run as plain processes over gloo, without Ray."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load
from torch import Tensor

from ganrun.config.schema import Config
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.telemetry.messages import Command, Event, Progress
from ganrun.training import checkpoint
from ganrun.worker.checkpoint_writer import CheckpointWriter, PendingCheckpoint


class Ranks:
    """A process group of which only rank and size matter."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size


class StopAt:
    """Channel to a driver that asks to stop after so many images."""

    def __init__(self, images: int | None = None) -> None:
        self.images, self.stop = images, False
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Progress) and self.images is not None:
            self.stop = event.images >= self.images

    def commands(self) -> list[Command]:
        """None come."""
        return []


class Awaited(CheckpointWriter):
    """Checkpoint writer that blocks until each checkpoint is written, so that none is skipped for a newer one."""

    def submit(self, pending: PendingCheckpoint) -> None:
        super().submit(pending)
        self.drain()


@contextlib.contextmanager
def checkpoints_awaited() -> Iterator[None]:
    """Make runs of this process wait for each checkpoint, so that a test can rely on every one."""
    with mock.patch("ganrun.worker.host.CheckpointWriter", Awaited):
        yield


def forking() -> ForkServerContext:
    """Return a context that forks from a server with torch and ganrun loaded, which saves seconds per process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", "ganrun.worker.worker", "ganrun.evaluate", "s3fs"])
    return context


def as_ranks(function: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Call a function with (rank, *arguments) in a process per rank, and wait for all.

    Raises:
        ProcessRaisedException: a process raised.
    """
    forking()
    multiprocessing.start_processes(
        _as_rank, (function, arguments, dict(os.environ)), nprocs=ranks, start_method="forkserver"
    )


def _as_rank(rank: int, function: Callable[..., None], arguments: tuple[Any, ...], environ: Mapping[str, str]) -> None:
    os.environ.update(environ)  # The server that forks has that of its own beginning.
    function(rank, *arguments)


def run_ranks(config: Config, workers: int, rendezvous: Path, stop_at: int | None = None) -> None:
    """Train with so many workers to the end or to `stop_at` images. `meeting` is a new file for the rendezvous."""
    if workers == 1:
        work_rank(0, config, 1, str(rendezvous), stop_at)
    else:
        as_ranks(work_rank, (config, workers, str(rendezvous), stop_at), workers)


def work_rank(rank: int, config: Config, workers: int, rendezvous: str, stop_at: int | None) -> None:
    """Run one worker that waits for each checkpoint."""
    with checkpoints_awaited():
        work_unawaited(rank, config, workers, rendezvous, stop_at)


def work_unawaited(rank: int, config: Config, workers: int, rendezvous: str, stop_at: int | None) -> None:
    """Run one worker that writes checkpoints in the background, as in a real run."""
    from ganrun.worker.worker import run_worker

    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    run_worker(config, rank, workers, torch.device("cpu"), StopAt(stop_at))  # type: ignore[arg-type]
    if workers > 1:
        dist.destroy_process_group()


def run_folder(config: Config) -> Path:
    return Path(config.run.storage) / config.run.name


def latest_tensors(config: Config) -> dict[str, Tensor]:
    """Return all tensors of the newest checkpoint."""
    storage, directory = find_checkpoint(f"{config.run.storage}/{config.run.name}")
    files = checkpoint.read(storage, directory)
    return {
        f"{file.removesuffix('.safetensors')}/{name}": tensor
        for file in sorted(files)
        if file.endswith(".safetensors")
        for name, tensor in load(files[file]).items()
    }
