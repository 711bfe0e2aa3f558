"""Sums of the metrics of turns, on the device until the tick."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganrun.slots import Slots
from ganrun.training.player_step import StepResult


class MetricRecorder:
    """Means of metrics since the last tick: a sum and a count for each slot and name.

    They are kept by slot, so that they are the same for every number of workers, and in checkpoints, so that a stop
    between two ticks loses nothing.
    """

    def __init__(self, slots: Slots, device: torch.device) -> None:
        self.slots, self.device = slots, device
        self.names: list[str] = []
        self._columns: dict[tuple[str, ...], Tensor] = {}
        self.sums = self._table(0)
        self.nonfinite = torch.zeros((), dtype=torch.int64, device=device)
        """Number of turns skipped since the last tick; the same on all workers."""

    def add(self, result: StepResult) -> None:
        """Add the scalars of a turn, by slot. Non-finite values are ignored."""
        for name in result.rows[0]:
            if name not in self.names:
                self.names.append(name)
        if len(self.names) > self.sums.shape[2]:
            wider = self._table(len(self.names))
            wider[:, :, : self.sums.shape[2]] = self.sums
            self.sums = wider
        columns = self._columns_of(tuple(result.rows[0]))
        values = torch.stack([torch.stack([row[name].double() for name in result.rows[0]]) for row in result.rows])
        finite = torch.isfinite(values)
        self.sums[:, 0].index_add_(1, columns, torch.where(finite, values, 0.0))
        self.sums[:, 1].index_add_(1, columns, finite.double())
        self.nonfinite += result.skipped.long()

    def read(self) -> tuple[dict[str, float], int]:
        """Return the mean of each metric over all slots and the number of turns skipped, and reset both.

        Collective over the workers. A metric without a finite value is left out.
        """
        table, nonfinite = self.slots.gather(self.sums).cpu().sum(0), int(self.nonfinite)
        self.sums.zero_()
        self.nonfinite.zero_()
        means = (table[0] / table[1]).tolist()
        counts = table[1].tolist()
        return {name: mean for name, mean, count in zip(self.names, means, counts, strict=True) if count}, nonfinite

    def state_dict(self) -> dict[str, Any]:
        """Return names, sums [slots, 2, names] and turns skipped. Collective over the workers.

        Tensors may be the recorder's own, as in a module's state dict: the next turn changes them.
        """
        return {"names": list(self.names), "sums": self.slots.gather(self.sums), "nonfinite": self.nonfinite}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load names, turns skipped and the sums of this worker's slots."""
        owned = self.slots.owned
        self.names = list(state_dict["names"])
        self._columns.clear()
        self.sums = state_dict["sums"][owned.start : owned.stop].to(self.device, copy=True)
        self.nonfinite = state_dict["nonfinite"].to(self.device, copy=True)

    def _columns_of(self, names: tuple[str, ...]) -> Tensor:
        """Return the columns of these names. Cached on the device: copying indices there would be a sync per turn."""
        if names not in self._columns:
            self._columns[names] = torch.tensor([self.names.index(name) for name in names], device=self.device)
        return self._columns[names]

    def _table(self, width: int) -> Tensor:
        """Return a table of zeros, [owned slots, 2 (sum, count), names]."""
        return torch.zeros(len(self.slots.owned), 2, width, dtype=torch.float64, device=self.device)
