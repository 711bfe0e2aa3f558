"""Distribution of the generator's input noise z. Training, scores and samples all draw z here."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.rng import KeyedNoise

TRUNCATION = 2.0
"""Bound of truncated noise, in standard deviations."""


@dataclass(frozen=True)
class Latent:
    """Distribution of z.

    Attributes:
        size: Z, dimension of z.
        kind: value of `model.latent`.
            normal: N(0, I).
            uniform: U[-1, 1) in each dimension (Radford et al. 2016, arXiv:1511.06434).
            truncated: N(0, I) cut at 2 standard deviations in each dimension (Brock et al. 2018, arXiv:1809.11096,
            section 3.1).
            hypersphere: uniform on the sphere of radius sqrt(Z) (Karras et al. 2017, arXiv:1710.10196).
    """

    size: int
    kind: str = "normal"

    def draw(self, noise: KeyedNoise, count: int, name: str) -> Tensor:
        """Draw z, [count, Z]. Calls with the same noise and name return the same numbers."""
        match self.kind:
            case "uniform":
                return 2 * noise.uniform(count, self.size, name=name) - 1
            case "truncated":
                # Inverse CDF sampling instead of rejection: the CDF is (1 + erf(x / sqrt 2)) / 2.
                share = math.erf(TRUNCATION / math.sqrt(2)) * (2 * noise.uniform(count, self.size, name=name) - 1)
                return torch.erfinv(share) * math.sqrt(2)
            case "hypersphere":
                z = noise.normal(count, self.size, name=name)
                return z / z.square().mean(dim=1, keepdim=True).sqrt()
        return noise.normal(count, self.size, name=name)
