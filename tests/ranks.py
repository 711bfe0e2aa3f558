"""Runs the workers of a run as plain processes over gloo: what Ray Train does, without Ray."""

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
from ganrun.training import checkpoint
from ganrun.worker.checkpoint_writer import CheckpointWriter, PendingCheckpoint


class StopAt:
    """A line to a driver that asks to stop once the run has shown so many images."""

    def __init__(self, images: int | None = None) -> None:
        self.images, self.stop = images, False
        self.events: list[dict[str, Any]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})
        if kind == "images" and self.images is not None:
            self.stop = fields["images"] >= self.images

    def commands(self) -> list[dict[str, Any]]:
        """None come."""
        return []


class Awaited(CheckpointWriter):
    """Each is written before the run goes on: on a busy machine too, none takes the place of another."""

    def submit(self, pending: PendingCheckpoint) -> None:
        super().submit(pending)
        self.drain()


@contextlib.contextmanager
def checkpoints_awaited() -> Iterator[None]:
    """Has the runs of this process wait for each of their checkpoints, so that a test may count on any of them."""
    with mock.patch("ganrun.worker.host.CheckpointWriter", Awaited):
        yield


def forking() -> ForkServerContext:
    """Begins processes that have loaded torch and ganrun already, which takes seconds in each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", "ganrun.worker.worker", "ganrun.evaluate", "s3fs"])
    return context


def as_ranks(function: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Calls it with a rank and the arguments in a process for each rank, and waits for all.

    Raises:
        ProcessRaisedException: one did.
    """
    forking()
    multiprocessing.start_processes(
        _as_rank, (function, arguments, dict(os.environ)), nprocs=ranks, start_method="forkserver"
    )


def _as_rank(rank: int, function: Callable[..., None], arguments: tuple[Any, ...], environ: Mapping[str, str]) -> None:
    os.environ.update(environ)  # The server that forks has that of its own beginning.
    function(rank, *arguments)


def run_ranks(config: Config, workers: int, rendezvous: Path, stop_at: int | None = None) -> None:
    """Trains with so many workers until the end, or until `stop_at` images are shown. `meeting` is an unused file."""
    if workers == 1:
        work_rank(0, config, 1, str(rendezvous), stop_at)
    else:
        as_ranks(work_rank, (config, workers, str(rendezvous), stop_at), workers)


def work_rank(rank: int, config: Config, workers: int, rendezvous: str, stop_at: int | None) -> None:
    """One worker, whose checkpoints are awaited."""
    with checkpoints_awaited():
        work_unawaited(rank, config, workers, rendezvous, stop_at)


def work_unawaited(rank: int, config: Config, workers: int, rendezvous: str, stop_at: int | None) -> None:
    """One worker, whose checkpoints are written behind the rounds, as they are in a real run."""
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
    """All tensors of the newest checkpoint."""
    storage, directory = find_checkpoint(config.run.uri)
    files = checkpoint.read(storage, directory)
    return {
        f"{file.removesuffix('.safetensors')}/{name}": tensor
        for file in sorted(files)
        if file.endswith(".safetensors")
        for name, tensor in load(files[file]).items()
    }
