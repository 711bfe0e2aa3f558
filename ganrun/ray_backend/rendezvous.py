"""Rendezvous of the workers of a run: a TCPStore that listens at a single address of rank 0's machine.

The stores of Ray Train and torch listen at every address of the machine. They also import torch, which takes seconds,
in the driver and in Ray's controller. Here only the workers import it, in parallel.
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
"""Timeout for destroying the process group at shutdown; the workers are killed after it."""
RENDEZVOUS_SECONDS = 120.0
"""Timeout of imports and rendezvous."""


@dataclass
class RendezvousConfig(BackendConfig):  # type: ignore[misc]
    """Config of the process group."""

    backend: str
    """Backend of torch.distributed."""
    timeout_s: int
    """Timeout of a collective in seconds."""
    uri: str
    """URI of the run's folder."""

    @property
    def backend_cls(self) -> type["_Rendezvous"]:
        """Class that Ray Train calls to set up and shut down the process group."""
        return _Rendezvous


class _Rendezvous(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: RendezvousConfig) -> None:
        workers = len(worker_group)
        ready = worker_group.execute_async(_prepare, backend_config.uri)
        address = worker_group.execute_single(0, _open_store, workers, backend_config.timeout_s)
        arguments = (workers, backend_config.backend, address, backend_config.timeout_s)
        joining = [worker_group.execute_single_async(rank, _join, rank, *arguments) for rank in range(workers)]
        try:
            ray.get([*ready, *joining], timeout=RENDEZVOUS_SECONDS)
        except (GetTimeoutError, RayTaskError) as error:  # The only error of a start that Ray retries.
            raise WorkerGroupStartupFailedError(f"the rendezvous of the workers failed: {error}") from error

    def on_shutdown(self, worker_group: Any, backend_config: RendezvousConfig) -> None:
        ray.wait(worker_group.execute_async(_destroy_group), num_returns=len(worker_group), timeout=GOODBYE_SECONDS)


_stores: list[Any] = []
"""Keeps the store of rank 0 alive as long as its process."""


def _prepare(uri: str) -> None:
    """Import the worker's modules, record collectives, and set RANK, WORLD_SIZE and so on as torchrun does."""
    import_module("ganrun.worker.worker")
    import_module("ganrun.worker.flight_recorder").switch_on(uri)
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
