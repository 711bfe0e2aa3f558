"""Ranks that score together: those of a process group, or one process without a group."""

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def place_in(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Return this process's rank and the number of ranks; 0 and 1 without a group."""
    return (0, 1) if group is None else (group.rank(), group.size())


def from_rank_0(value: T, group: dist.ProcessGroup | None) -> T:
    """Return rank 0's value on each rank. Collective; the value is pickled."""
    values = [value]
    if group is not None:
        dist.broadcast_object_list(values, group=group, group_src=0)
    return values[0]
