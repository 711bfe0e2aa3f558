"""Work that rank 0 does for all ranks, such as reading a checkpoint: its result, or its failure, on every rank."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from ganrun.errors import RunError, UserError
from ganrun.slots import Slots
from ganrun.training.state import Groups

CHUNK_BYTES = 64 * 2**20
"""Largest message of a broadcast."""
ALIGNMENT = 16
"""Tensors begin at multiples of it, so that a part of the buffer can be viewed in any dtype."""
Layout = dict[str, dict[str, tuple[torch.dtype, torch.Size]]]
T = TypeVar("T")


def call_on_rank_0(call: Callable[[], tuple[T, Groups]], slots: Slots, device: torch.device) -> tuple[T, Groups]:
    """Call a function on rank 0 alone. All ranks call this together and return the same bits.

    Args:
        call: returns a small value, which is pickled, and tensors, which are broadcast as bytes.
        slots: of this rank.
        device: of the process group's broadcasts: CPU for gloo, GPU for NCCL.

    Raises:
        Exception: whatever `call` raised on rank 0, on every rank.
    """
    if slots.workers == 1:
        return call()
    result: tuple[T, Groups] | None = None
    failure: Exception | None = None
    if slots.rank == 0:
        try:
            result = call()
        except Exception as error:
            failure = error
    header = (result[0], _layout(result[1])) if result else None
    header, told = slots.from_rank_0((header, failure and _portable(failure)))
    if fault := failure or told:
        raise fault
    assert header is not None
    value, layout = header
    return value, _broadcast(result[1] if result else None, layout, device)


def _broadcast(groups: Groups | None, layout: Layout, device: torch.device) -> Groups:
    """Send rank 0's tensors to all ranks, where they become views of one buffer on the device."""
    sizes = [math.prod(shape) * dtype.itemsize for group in layout.values() for dtype, shape in group.values()]
    buffer = torch.empty(sum(map(_aligned, sizes)), dtype=torch.uint8, device=device)
    views, start = Groups(), 0
    for name, group in layout.items():
        views[name] = {}
        for key, (dtype, shape) in group.items():
            size = math.prod(shape) * dtype.itemsize
            views[name][key] = view = buffer[start : start + size].view(dtype).view(shape)
            if groups is not None:
                view.copy_(groups[name][key])
            start += _aligned(size)
    for start in range(0, len(buffer), CHUNK_BYTES):
        dist.broadcast(buffer[start : start + CHUNK_BYTES], 0)
    return views


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _layout(groups: Groups) -> Layout:
    return {name: {key: (each.dtype, each.shape) for key, each in group.items()} for name, group in groups.items()}


def _portable(error: Exception) -> Exception:
    """Return the error that the other ranks raise: it can be pickled, and the driver treats it as the original."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if isinstance(error, RunError):
        return RunError(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or str(error), error.filename)
    return RuntimeError(f"rank 0 failed: {type(error).__name__}: {error}")
