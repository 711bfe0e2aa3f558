"""Which slots of the global batch a worker owns, and how their values come together."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Slots:
    """The S slots seen from one of W workers, which owns a run of them.

    Attributes:
        total: S, the number of slots.
        rank: of this worker, 0 to W - 1.
        workers: W, at most S.
    """

    total: int
    rank: int = 0
    workers: int = 1

    @property
    def owned(self) -> range:
        """The slots of this worker; workers own equal numbers of them, or one more or less."""
        return range(
            self.rank * self.total // self.workers,
            (self.rank + 1) * self.total // self.workers,
        )

    @property
    def weight(self) -> float:
        """What to multiply a slot's loss by, so that the mean of gradients over W workers is that over S slots."""
        return self.workers / self.total

    def gather(self, rows: Tensor) -> Tensor:
        """One row of each owned slot, [owned, ...], to the rows of all slots in their order, [S, ...].

        Adding zeros is exact, so the result is the same bits on every worker and for every W.
        """
        if self.workers == 1:
            return rows
        table = rows.new_zeros(self.total, *rows.shape[1:])
        table[self.owned.start : self.owned.stop] = rows
        dist.all_reduce(table)
        return table

    def from_rank_0(self, value: T) -> T:
        """Rank 0's value, on every worker; all call it together."""
        values = [value]
        if self.workers > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    def flags_from_rank_0(self, *flags: bool) -> list[bool]:
        """The same for flags, cheap enough for every round: on the CPU, so that no GPU is waited for."""
        if self.workers == 1:
            return list(flags)
        values = torch.tensor(flags)
        dist.broadcast(values, 0)
        return values.tolist()  # type: ignore[no-any-return]
