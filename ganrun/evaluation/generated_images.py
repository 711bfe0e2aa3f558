"""Generated images by number, the same ones at every score."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.games.game import Game, Networks
from ganrun.rng import KeyedNoise

BATCH = 64
"""Images per chunk, see `feature_statistics`."""


@dataclass(frozen=True)
class GeneratedImages:
    """Images that the networks of a game generate from one seed.

    Attributes:
        game: the game.
        networks: EMA networks by name, in eval mode.
        seed: seed of the noise.
    """

    game: Game
    networks: Networks
    seed: int

    @property
    def device(self) -> torch.device:
        """Device of the networks and of the images."""
        return next(next(iter(self.networks.values())).parameters()).device

    @torch.inference_mode()
    def images(self, start: int, count: int) -> Tensor:
        """Return images start to start + count - 1, [count, C, H, W] in [-1, 1]. Their noise is keyed by `start`."""
        dtype = next(next(iter(self.networks.values())).parameters()).dtype
        noise = KeyedNoise(self.seed, 0, 0, start, self.device, dtype)
        z = self.game.latent.draw(noise, count, "evaluate/z")
        return self.game.sample(self.networks, z, self.game.labels(start, count, self.device))

    def labels(self, samples: int) -> Tensor | None:
        """Return labels of the first `samples` images, int64 [samples] on the CPU; None if unconditional."""
        return self.game.labels(0, samples, torch.device("cpu"))
