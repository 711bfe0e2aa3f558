"""Where the workers of a run meet: a store that listens at one address of rank 0's machine, and at no other.

What Ray Train and torch do by themselves listens at every address that the machine has.
"""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]

LOST_SECONDS = {
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
}
"""Ray Train's own are made for the patient: a worker that does not answer is given up after so long, not 10 minutes.
One that waits for its storage still answers."""


@dataclass
class MeetingConfig(TorchConfig):  # type: ignore[misc]
    """How the process group is set up; `timeout_s` is what a collective may take."""

    @property
    def backend_cls(self) -> type["_Meeting"]:
        """What Ray Train calls."""
        return _Meeting


class _Meeting(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: MeetingConfig) -> None:
        workers = len(worker_group)
        worker_group.execute(_set_torch_distributed_env_vars)
        address = worker_group.execute_single(0, _open_store, workers, backend_config.timeout_s)
        arguments = (workers, backend_config.backend, address, backend_config.timeout_s)
        ray.get([worker_group.execute_single_async(rank, _join, rank, *arguments) for rank in range(workers)])


_stores: list[Any] = []
"""In rank 0's process, as long as it lives."""


def _open_store(workers: int, timeout_s: int) -> tuple[str, int]:
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
    host, port = address
    os.environ.update(MASTER_ADDR=host, MASTER_PORT=str(port))
    seconds = timedelta(seconds=timeout_s)
    store = TCPStore(host, port, None, is_master=False, wait_for_workers=False, timeout=seconds)
    dist.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=seconds)
