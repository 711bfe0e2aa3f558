"""Generated images by number, always the same: those that scores are measured on and that `ganrun sample` draws."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ganrun.games.game import Game, Networks
from ganrun.rng import KeyedNoise

BATCH = 64
"""Images per chunk, see `feature_statistics`."""


class ScoredImages(Protocol):
    """Images that can be scored: those of a generator, or pictures in a folder."""

    @property
    def seed(self) -> int:
        """Seed of the images, and of the subsets of a score."""

    @property
    def device(self) -> torch.device:
        """Device of the images."""

    def images(self, start: int, count: int) -> Tensor:
        """Return the images numbered from `start`, a multiple of BATCH: [count, C, H, W] in [-1, 1]."""

    def labels(self, samples: int) -> Tensor | None:
        """Return the labels of the first `samples` images, int64 [samples] on the CPU; None without labels."""


@dataclass(frozen=True)
class GeneratedImages:
    """Images that the networks of a game generate from one seed; each depends on the seed and its number alone.

    Attributes:
        game: the game whose `sample` generates them.
        networks: the EMA networks, in eval mode.
        seed: seed of the noise.
        label: the label of all images; None: each class of a conditional game in turn.
    """

    game: Game
    networks: Networks
    seed: int
    label: int | None = None

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(next(iter(self.networks.values())).parameters()).device

    @torch.inference_mode()
    def images(self, start: int, count: int) -> Tensor:
        """Return the images numbered from `start`, [count, C, H, W] in [-1, 1]."""
        labels = self.labels(count, start)
        z = self.noise(start, count)
        return self.game.sample(self.networks, z, None if labels is None else labels.to(self.device))

    def noise(self, start: int, count: int) -> Tensor:
        """Return the noise of the images numbered from `start`, [count, Z].

        It is drawn in whole chunks of BATCH, so that a row does not depend on how many are asked for.
        """
        first = start // BATCH
        chunks = [self._noise_chunk(chunk) for chunk in range(first, -(-(start + count) // BATCH))]
        return torch.cat(chunks)[start - first * BATCH :][:count]

    def _noise_chunk(self, chunk: int) -> Tensor:
        dtype = next(next(iter(self.networks.values())).parameters()).dtype
        noise = KeyedNoise(self.seed, 0, 0, chunk * BATCH, self.device, dtype)
        return self.game.latent.draw(noise, BATCH, "evaluate/z")

    def labels(self, samples: int, start: int = 0) -> Tensor | None:
        """Return the labels of `samples` images from `start`, int64 [samples] on the CPU; None without labels."""
        labels = self.game.labels(start, samples, torch.device("cpu"))
        return labels if labels is None or self.label is None else torch.full_like(labels, self.label)
