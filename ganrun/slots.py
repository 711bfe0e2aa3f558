"""Assigns slots of the global batch to workers, and gathers per-slot values."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Slots:
    """Slots of the global batch, as one worker sees them. Each worker owns a contiguous range.

    Attributes:
        total: S, number of slots (`data.slots`).
        rank: rank of this worker, 0 .. W - 1.
        workers: W, number of workers, at most S.
    """

    total: int
    rank: int = 0
    workers: int = 1

    @property
    def owned(self) -> range:
        """Slots of this worker. Sizes of two workers' ranges differ by at most 1."""
        return range(
            self.rank * self.total // self.workers,
            (self.rank + 1) * self.total // self.workers,
        )

    @property
    def weight(self) -> float:
        """Factor of a slot's loss, W / S: DDP's mean over W workers is then the mean over S slots."""
        return self.workers / self.total

    def gather(self, rows: Tensor) -> Tensor:
        """Gather one row per owned slot, [owned, ...], to [S, ...] in slot order. Collective."""
        table = self.table(rows)
        self.add(table)
        return table

    def table(self, rows: Tensor) -> Tensor:
        """Return one row per owned slot, [owned, ...], in a table of all slots [S, ...], zero elsewhere.

        Adding zeros is exact, so the sum over the workers is bitwise the same on every worker and for every W.
        """
        if self.workers == 1:
            return rows
        table = rows.new_zeros(self.total, *rows.shape[1:])
        table[self.owned.start : self.owned.stop] = rows
        return table

    def add(self, tensor: Tensor) -> None:
        """Add a tensor over the workers, in place. Collective."""
        if self.workers > 1:
            dist.all_reduce(tensor)

    def from_rank_0(self, value: T) -> T:
        """Return rank 0's value on every worker. Collective; the value is pickled."""
        values = [value]
        if self.workers > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    def flags_from_rank_0(self, *flags: bool) -> list[bool]:
        """Return rank 0's flags on every worker. Collective; a CPU tensor, so cheap enough for every round."""
        if self.workers == 1:
            return list(flags)
        values = torch.tensor(flags)
        dist.broadcast(values, 0)
        return values.tolist()  # type: ignore[no-any-return]
