"""Latent spaces of generators, as projection and painting search them.

A space says how its latents are drawn, which are allowed, what image one has, and what lies between two. Projection
knows no more of a generator, so a further space is a class beside `ZSpace`.

Shapes: B latents, Z numbers of a latent, C channels, H and W pixels.
"""

import math
from typing import Protocol

from torch import Tensor

from ganrun.errors import UserError
from ganrun.games.latent import TRUNCATION
from ganrun.inference.sampling import Sampler, slerp
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

SHELL = 1.5
"""Norms of z ~ N(0, I) lie within sqrt(Z) +- 1.5 in all but 2 of 100 draws: their standard deviation is sqrt(1/2)."""


class LatentSpace(Protocol):
    """Latents of a generator that can be searched by gradients."""

    @property
    def name(self) -> str:
        """Name of the space, for files of latents."""

    @property
    def size(self) -> int:
        """Numbers of a latent."""

    def draw(self, count: int, seed: int) -> Tensor:
        """Return random latents, [count, Z]."""

    def allowed(self, latents: Tensor) -> Tensor:
        """Return the nearest latents that the generator was trained on, [B, Z]."""

    def images(self, latents: Tensor, given: Given) -> Tensor:
        """Return the images [B, C, H, W] in [-1, 1] of latents [B, Z]; gradients reach the latents."""

    def between(self, begin: Tensor, end: Tensor, steps: int) -> Tensor:
        """Return latents from one [Z] to another, [steps, Z]."""


class ZSpace:
    """Input noise z of a generator. Noise within the network, if it has any, is the same for all latents.

    Args:
        sampler: the checkpoint.

    Raises:
        UserError: the run makes points, or its generator has no z.
    """

    name = "z"

    def __init__(self, sampler: Sampler) -> None:
        game, where = sampler.game, sampler.config.run.name
        if sampler.of_points:
            raise UserError(f"{where}: this run makes points; give a run that makes images")
        if game.from_z is None or game.latent is None:
            raise UserError(
                f"{where}: model.name: {sampler.config.model.name}: its generator has no z to search; give another run"
            )
        self._from_z, self._networks, self.latent = game.from_z, game.networks, game.latent
        self.size = self.latent.size
        parameter = next(next(iter(self._networks.values())).parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        for network in self._networks.values():
            network.requires_grad_(False)

    def draw(self, count: int, seed: int) -> Tensor:
        """Return z of the distribution that the generator was trained on, [count, Z]."""
        return self.latent.draw(self._noise(seed), count, "z")

    def allowed(self, latents: Tensor) -> Tensor:
        """Return z within the bounds of its distribution; for a normal one, of a norm that draws have."""
        match self.latent.kind:
            case "uniform":
                return latents.clamp(-1, 1)
            case "truncated":
                return latents.clamp(-TRUNCATION, TRUNCATION)
            case "hypersphere":
                return latents / latents.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
        norm: Tensor = latents.norm(dim=1, keepdim=True).clamp(min=1e-6)
        shrunk: Tensor = latents * (norm.clamp(max=math.sqrt(self.size) + SHELL) / norm)
        return shrunk

    def images(self, latents: Tensor, given: Given) -> Tensor:
        """Return G(z, c), [B, C, H, W] in [-1, 1]."""
        return self._from_z(self._networks, latents, self._noise(0), given)

    def between(self, begin: Tensor, end: Tensor, steps: int) -> Tensor:
        """Return z along the great circle, [steps, Z]."""
        return slerp(begin, end, steps)

    def _noise(self, seed: int) -> KeyedNoise:
        return KeyedNoise(seed, 0, 0, 0, self.device, self.dtype).under("project")
