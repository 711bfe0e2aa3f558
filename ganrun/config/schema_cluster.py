"""Section `cluster` of a config."""

from typing import Literal

from ganrun.config.field_types import Positive, Section, Variables, Whole, Workers


class ClusterConfig(Section):
    """Number of workers and their resources."""

    workers: Workers = 1
    """Number of training processes, at most data.slots; or [fewest, most] for an elastic run."""
    gpus_per_worker: Literal[0, 1] = 0
    """GPUs per worker; 0: train on the CPU."""
    cpus_per_worker: Positive = 1
    """CPUs that Ray reserves per worker; in CPU training also its number of threads."""
    max_failures: Whole = 3
    """Restarts after worker failures; then the run fails."""
    placement: Literal["pack", "spread"] = "pack"
    """Where workers start: on as few nodes as possible, or on as many; either, if there is no room for that."""
    env: Variables = {}
    """Environment variables of the workers by name, for NCCL, EFA (FI_) and sockets: {NCCL_SOCKET_IFNAME: eth0}."""

    @property
    def fewest_workers(self) -> int:
        """Minimum number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Maximum number of workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]
