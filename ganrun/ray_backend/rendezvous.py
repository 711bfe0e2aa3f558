"""Rendezvous of the workers of a run: a store that listens at one address of rank 0's machine, and at no other.

What Ray Train and torch do by themselves listens at every address that the machine has. And theirs needs torch in each
process on the way to the workers, which takes seconds to import: here the workers alone import it, all at once.
"""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.train.backend import Backend, BackendConfig

from ganrun.ray_backend.internals import WorkerGroupStartupFailedError

GOODBYE_SECONDS = 5.0
"""Workers are killed after it."""
RENDEZVOUS_SECONDS = 120.0


@dataclass
class RendezvousConfig(BackendConfig):  # type: ignore[misc]
    """How the process group is set up; `timeout_s` is what a collective may take."""

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type["_Rendezvous"]:
        """What Ray Train calls."""
        return _Rendezvous


class _Rendezvous(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: RendezvousConfig) -> None:
        workers = len(worker_group)
        ready = worker_group.execute_async(_prepare)
        address = worker_group.execute_single(0, _open_store, workers, backend_config.timeout_s)
        arguments = (workers, backend_config.backend, address, backend_config.timeout_s)
        joining = [worker_group.execute_single_async(rank, _join, rank, *arguments) for rank in range(workers)]
        try:
            ray.get([*ready, *joining], timeout=RENDEZVOUS_SECONDS)
        except (GetTimeoutError, RayTaskError) as error:  # Ray Train starts again over this one alone.
            raise WorkerGroupStartupFailedError(f"the workers did not meet: {error}") from error

    def on_shutdown(self, worker_group: Any, backend_config: RendezvousConfig) -> None:
        ray.wait(worker_group.execute_async(_destroy_group), num_returns=len(worker_group), timeout=GOODBYE_SECONDS)


_stores: list[Any] = []
"""In rank 0's process, as long as it lives."""


def _prepare() -> None:
    """Imports all that a worker needs, and says who it is as torch's own launcher does."""
    import_module("ganrun.worker.worker")
    context = ray.train.get_context()
    for name in ("world_rank", "world_size", "local_rank", "local_world_size", "node_rank"):
        variable = "RANK" if name == "world_rank" else name.upper()
        os.environ[variable] = str(getattr(context, f"get_{name}")())


def _open_store(workers: int, timeout_s: int) -> tuple[str, int]:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(workers + 16)
    port = listener.getsockname()[1]
    seconds = timedelta(seconds=timeout_s)
    _stores.append(
        TCPStore(
            host,
            port,
            None,
            is_master=True,
            wait_for_workers=False,
            timeout=seconds,
            master_listen_fd=listener.detach(),
        )
    )
    return host, port


def _join(rank: int, workers: int, backend: str, address: tuple[str, int], timeout_s: int) -> None:
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = address
    os.environ.update(MASTER_ADDR=host, MASTER_PORT=str(port))
    seconds = timedelta(seconds=timeout_s)
    store = TCPStore(host, port, None, is_master=False, wait_for_workers=False, timeout=seconds)
    dist.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=seconds)


def _destroy_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.destroy_process_group()
