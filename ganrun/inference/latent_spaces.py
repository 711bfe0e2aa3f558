"""Latent spaces of generators, as projection and painting search them.

A space says how its latents are drawn, which are allowed, what image one has, and what lies between two. Projection
knows no more of a generator, so a further space is a class beside `ZSpace`.

Shapes: B latents, Z numbers of a latent, C channels, H and W pixels.
"""

import math
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ganrun.errors import UserError
from ganrun.games.latent import TRUNCATION
from ganrun.inference.sampling import Sampler, slerp
from ganrun.models.given import Given
from ganrun.models.style import StyleGenerator
from ganrun.rng import KeyedNoise, shared

SHELL = 1.5
"""Norms of z ~ N(0, I) lie within sqrt(Z) +- 1.5 in all but 2 of 100 draws: their standard deviation is sqrt(1/2)."""
DRAWS = 1_024
"""Draws of w by which its mean and its spread are measured."""
SpaceName = Literal["z", "w", "w+"]
NOTHING: Given = MappingProxyType({})
"""Condition of a run without labels."""


class LatentSpace(Protocol):
    """Latents of a generator that can be searched by gradients."""

    @property
    def name(self) -> str:
        """Name of the space, for files of latents."""

    @property
    def size(self) -> int:
        """Numbers of a latent."""

    @property
    def scale(self) -> float:
        """Standard deviation of their numbers."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the latents, which are on the CPU."""

    def draw(self, count: int, seed: int, given: Given = NOTHING) -> Tensor:
        """Return random latents for a condition of `count` images, [count, Z]."""

    def allowed(self, latents: Tensor) -> Tensor:
        """Return the nearest latents that the generator was trained on, [B, Z]."""

    def images(self, latents: Tensor, given: Given) -> Tensor:
        """Return the images [B, C, H, W] in [-1, 1] of latents [B, Z]; gradients reach the latents."""

    def between(self, begin: Tensor, end: Tensor, steps: int) -> Tensor:
        """Return latents from one [Z] to another, [steps, Z]."""


class ZSpace:
    """Input noise z of a generator. Noise within the network, if it has any, is the same for all latents.

    Attributes and methods: see `LatentSpace`.

    Args:
        sampler: the checkpoint.

    Raises:
        UserError: the run makes points, or its generator has no z.
    """

    name: SpaceName = "z"
    scale = 1.0

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

    def draw(self, count: int, seed: int, given: Given = NOTHING) -> Tensor:
        """Return z of the distribution that the generator was trained on, [count, Z]."""
        return self.latent.draw(self.noise(seed), count, "z")

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
        return self._from_z(self._networks, latents, shared(self.noise(0)), given)

    def between(self, begin: Tensor, end: Tensor, steps: int) -> Tensor:
        """Return z along the great circle, [steps, Z]."""
        return slerp(begin, end, steps)

    def noise(self, seed: int) -> KeyedNoise:
        """Return the noise of a seed."""
        return KeyedNoise(seed, 0, 0, 0, self.device, self.dtype).under("project")


class WSpace:
    """Space of the w of a generator with styles: one w for all its layers, or one for each (w+), in a row.

    Abdal et al. 2019 (arXiv:1904.03189) search w+. Noise within the network is the same for all latents.

    Attributes and methods: see `LatentSpace`.

    Args:
        z: space of z of the generator.
        generator: the generator.
        classes: K of class labels; 0: there are none.
        each_layer: a w for each layer.
    """

    def __init__(self, z: ZSpace, generator: StyleGenerator, classes: int, each_layer: bool) -> None:
        self._z, self._generator, self._copies = z, generator, generator.layers if each_layer else 1
        self.name: SpaceName = "w+" if each_layer else "w"
        self.size, self.dtype = self._copies * generator.w_size, z.dtype
        labels: Given = {"label": torch.arange(DRAWS) % classes} if classes else {}
        drawn = self._w(DRAWS, 0, labels)
        self._mean = drawn.mean(0)
        self.scale = float(drawn.std(0).square().mean().sqrt())
        self._radius = float((drawn - self._mean).norm(dim=1).max())

    def draw(self, count: int, seed: int, given: Given = NOTHING) -> Tensor:
        """Return w of random z, the same for each layer, [count, Z]."""
        return self._w(count, seed, given).repeat(1, self._copies)

    def allowed(self, latents: Tensor) -> Tensor:
        """Return latents whose w are no farther from the mean than any of DRAWS random ones."""
        away = latents.view(len(latents), self._copies, -1) - self._mean
        norm = away.norm(dim=2, keepdim=True).clamp(min=1e-6)
        within: Tensor = self._mean + away * (norm.clamp(max=self._radius) / norm)
        return within.flatten(1)

    def images(self, latents: Tensor, given: Given) -> Tensor:
        """Return the images of latents, [B, C, H, W]. The class has no part in them: w knows it."""
        w = latents.view(len(latents), self._copies, -1).expand(-1, self._generator.layers, -1)
        return self._generator.synthesis(w, shared(self._z.noise(0)))

    def between(self, begin: Tensor, end: Tensor, steps: int) -> Tensor:
        """Return w along the straight line, [steps, Z]."""
        return torch.lerp(begin, end, torch.linspace(0, 1, steps, dtype=begin.dtype)[:, None])

    def _w(self, count: int, seed: int, given: Given) -> Tensor:
        with torch.no_grad():
            return self._generator.mapping(self._z.draw(count, seed, given), given)


def space_of(sampler: Sampler, name: SpaceName | None = None) -> LatentSpace:
    """Return a latent space of a checkpoint; None: w where its generator has styles, else z.

    Raises:
        UserError: the generator has no such space.
    """
    if name not in (None, *get_args(SpaceName)):
        raise UserError(f"space {name}: is not allowed; it should be one of: {', '.join(get_args(SpaceName))}")
    z, generator = ZSpace(sampler), sampler.game.networks.get("generator")
    if not isinstance(generator, StyleGenerator):
        if name not in (None, "z"):
            raise UserError(
                f"space {name}: model.name: {sampler.config.model.name} has no styles; take z, or give a run of "
                "stylegan2"
            )
        return z
    if name == "z":
        return z
    return WSpace(z, generator, sampler.classes, each_layer=name == "w+")
