"""The noise z that a generator makes images of: the one place that draws it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.rng import KeyedNoise

TRUNCATION = 2.0
"""Truncated numbers are no larger than so many standard deviations."""


@dataclass(frozen=True)
class Latent:
    """Where z comes from.

    Attributes:
        size: Z, its dimensions.
        kind: `model.latent`: normal, N(0, 1); uniform in [-1, 1), as in Radford et al. 2016 (arXiv:1511.06434);
            truncated, N(0, 1) but for what is beyond 2, as Brock et al. 2018 sample (arXiv:1809.11096, section 3.1);
            hypersphere, uniform on the sphere of radius sqrt(Z), as in Karras et al. 2017 (arXiv:1710.10196).
    """

    size: int
    kind: str = "normal"

    def draw(self, noise: KeyedNoise, count: int, name: str) -> Tensor:
        """`count` of them, [count, Z]; the same at every call with the same name."""
        match self.kind:
            case "uniform":
                return 2 * noise.uniform(count, self.size, name=name) - 1
            case "truncated":
                # By the inverse of the distribution function, erf(x / sqrt 2), so that nothing is drawn again.
                share = math.erf(TRUNCATION / math.sqrt(2)) * (2 * noise.uniform(count, self.size, name=name) - 1)
                return torch.erfinv(share) * math.sqrt(2)
            case "hypersphere":
                z = noise.normal(count, self.size, name=name)
                return z / z.square().mean(dim=1, keepdim=True).sqrt()
        return noise.normal(count, self.size, name=name)
