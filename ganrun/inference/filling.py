"""Fills the missing numbers of a user's table.

Shapes: R rows, N columns.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ganrun.data.columns import Column, Numbers, columns_of, restored, scaled
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.games.conditions import UserInput
from ganrun.games.masked import MaskedPoints
from ganrun.inference.sampling import Sampler


class Filler:
    """EMA generator of a checkpoint of a run over a table, for tables of the same columns.

    Args:
        sampler: the checkpoint.
        where: the user's table, for messages.

    Raises:
        UserError: the run fills no tables, or the index of its data cannot be read.
    """

    def __init__(self, sampler: Sampler, where: str) -> None:
        data = sampler.config.data
        if not isinstance(sampler.game.condition, MaskedPoints):
            sampler.game.condition.from_user(UserInput(where))  # It says what it takes instead.
            raise UserError(f"{where}: this run fills no tables; give a picture")
        self.game, self.columns, self.where = sampler.game, columns_of(open_data(data.shards).index), where
        if not self.columns:
            raise UserError(
                f"{where}: the data of this run, {data.shards}, are no table; make one: ganrun prepare table:"
            )
        parameter = next(sampler.game.networks["generator"].parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def filled(self, values: Numbers, names: Sequence[str], seed: int) -> Numbers:
        """Return a table [R, N] with its missing numbers, NaN, filled in. A row depends on the seed and its number.

        Args:
            values: the table.
            names: its columns, in any order.
            seed: seed of the noise.

        Raises:
            UserError: other columns than those of the run's data, or no number is missing.
        """
        columns = self._in_order(names)
        if not np.isnan(values).any():
            raise UserError(f"{self.where}: no number is missing; leave cells empty that are to be filled")
        order = [self.columns.index(column) for column in columns]
        rows = np.empty_like(values)
        rows[:, order] = scaled(values, columns)
        made = restored(self._generate(rows, seed)[:, order], columns)
        return np.where(np.isnan(values), made, values)

    def _in_order(self, names: Sequence[str]) -> list[Column]:
        """Return the run's columns in the order of the user's.

        Raises:
            UserError: one is missing or unknown.
        """
        known = {column.name: column for column in self.columns}
        if lacking := [name for name in known if name not in names]:
            raise UserError(
                f"{self.where}: column {lacking[0]!r} of the run's data is missing; add it, empty if unknown"
            )
        if strange := [name for name in names if name not in known]:
            raise UserError(f"{self.where}: column {strange[0]!r} is not in the run's data; remove it")
        return [known[name] for name in names]

    @torch.inference_mode()
    def _generate(self, rows: Numbers, seed: int) -> Numbers:
        """Return scaled rows with all numbers."""
        found, generated = [], GeneratedImages(self.game, self.game.networks, seed)
        for start in range(0, len(rows), BATCH):
            points = torch.from_numpy(rows[start : start + BATCH]).to(self.device, self.dtype)[:, :, None, None]
            given = [self.game.condition.from_user(UserInput(self.where, point)) for point in points]
            joined = {name: torch.cat([each[name] for each in given]) for name in given[0]}
            made = self.game.sample(self.game.networks, len(points), generated.noise(start, len(points)), joined)
            found.append(made.flatten(1).double().cpu())
        return np.asarray(torch.cat(found).numpy())
