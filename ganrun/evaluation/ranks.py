"""Ranks that score together: those of a process group, or one process without a group."""

import torch.distributed as dist


def place_in(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Return this process's rank and the number of ranks; 0 and 1 without a group."""
    return (0, 1) if group is None else (group.rank(), group.size())
