"""Weights that a game sets by the training samples before the first round, such as those of a fit by EM."""

from collections.abc import Iterator

import torch

from ganrun.config.schema import DataConfig
from ganrun.data.cache import open_cache
from ganrun.data.index import DataSet
from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.games.game import Batch, Game
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots


def initialise(
    game: Game, settings: DataConfig, target: str, seed: int, data: DataSet, slots: Slots, device: torch.device
) -> None:
    """Initialise a game by its training samples, if it asks for that. Collective.

    Args:
        game: the game, with its networks on the device.
        settings: section `data`.
        target: the field that is learned, `objective.target`.
        seed: `run.seed`.
        data: the samples that are trained on.
        slots: of this rank; ranks take chunks of samples by turns.
        device: of the networks.

    Raises:
        UserError: the data is corrupt, or does not do for the game.
    """
    if game.initialise is None:
        return
    dtype = next(next(iter(game.networks.values())).parameters()).dtype
    cache = open_cache(settings.cache_mib)
    samples = PairedSamples(data, data.samples, settings.fields, target, settings.damaged_share, cache)

    def passes() -> Iterator[tuple[Batch, KeyedNoise]]:
        for start in range(slots.rank * BATCH, data.samples, slots.workers * BATCH):
            batch = samples.batch(start, min(BATCH, data.samples - start), device, dtype)
            yield batch, KeyedNoise(seed, 0, 0, start, device, dtype).under("initialise")

    game.initialise(passes, slots.add)
