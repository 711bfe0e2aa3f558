"""The images of a game by number, always the same: those that scores are measured on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.games.game import Game, Networks
from ganrun.rng import KeyedNoise

BATCH = 64
"""Images in a chunk of work for one rank."""


@dataclass(frozen=True)
class GeneratedImages:
    """What networks of a game generate from one seed.

    Attributes:
        networks: the averaged ones, in eval mode.
        seed: of the noise.
    """

    game: Game
    networks: Networks
    seed: int

    @property
    def device(self) -> torch.device:
        """Where the images are made."""
        return next(next(iter(self.networks.values())).parameters()).device

    @torch.inference_mode()
    def images(self, start: int, count: int) -> Tensor:
        """Those numbered from `start` on, [count, C, H, W] in [-1, 1]; their noise belongs to `start`."""
        dtype = next(next(iter(self.networks.values())).parameters()).dtype
        noise = KeyedNoise(self.seed, 0, 0, start, self.device, dtype)
        z = self.game.latent.draw(noise, count, "evaluate/z")
        return self.game.sample(self.networks, z, self.game.labels(start, count, self.device))

    def labels(self, samples: int) -> Tensor | None:
        """Of the first `samples` images, int64 [samples] on the CPU; None if they are generated for no label."""
        return self.game.labels(0, samples, torch.device("cpu"))
