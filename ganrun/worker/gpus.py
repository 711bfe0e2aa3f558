"""The GPU of a worker, and those of the others."""

import logging
from collections.abc import Sequence

import torch
import torch.distributed as dist

from ganrun.slots import Slots

logger = logging.getLogger(__name__)


def use_gpu(device: torch.device) -> None:
    """Make a GPU that of this thread, with the settings of training."""
    torch.cuda.set_device(device)  # Workers see all GPUs; NCCL and current_stream() use the current one of the thread.
    torch.backends.cudnn.benchmark = True  # Rounds have the same shapes.
    torch.set_float32_matmul_precision("high")  # TF32, which convolutions have anyway.


def warn_of_mixed_gpus(device: torch.device, slots: Slots) -> None:
    """Log a line if the workers have GPUs of several kinds. Collective."""
    if device.type != "cuda" or slots.workers == 1:
        return
    names = [""] * slots.workers
    dist.all_gather_object(names, torch.cuda.get_device_name(device))
    if line := of_several_kinds(names):
        logger.warning(line)


def of_several_kinds(names: Sequence[str]) -> str | None:
    """Return a line for people if the names of GPUs, by rank, differ; None otherwise."""
    if len(set(names)) <= 1:
        return None
    ranks = {name: [str(rank) for rank, each in enumerate(names) if each == name] for name in dict.fromkeys(names)}
    listed = "; ".join(f"{name} (ranks {', '.join(of_name)})" for name, of_name in ranks.items())
    return (
        f"cluster: GPUs of several kinds: {listed}; a round takes as long as on the slowest one, and results depend on "
        "which rank has which, since kinds round and draw noise over pixels differently"
    )
