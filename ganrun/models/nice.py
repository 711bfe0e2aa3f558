"""NICE (Dinh et al. 2015, arXiv:1410.8516): additive couplings between pixels of even and odd number, and a scaling.

z_a = x_a, z_b = x_b + t(x_a) has the determinant 1; a learned scale of each number at the end says how much of the
image it explains (section 3.3). With a logistic prior, as here, it is nonlinear independent component analysis.

Shapes: B batch, D numbers of an image, F `model.width`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.density import LEVELS, Density, dequantised, quantised
from ganrun.models.logistic_mixture import LEAST
from ganrun.rng import KeyedNoise


class Nice(Density):
    """Images [B, C, S, S], dequantised and scaled to [-1, 1).

    Args:
        shape: C, S and S, of an even number of numbers.
        width: F, units of the two hidden layers of a coupling.
        blocks: number of couplings, at least 2: each half is changed by turns.
    """

    bound = "uniform dequantisation"

    def __init__(self, shape: tuple[int, int, int], width: int, blocks: int) -> None:
        super().__init__()
        self.shape, self.latent_size = shape, math.prod(shape)
        self.couplings = nn.ModuleList(_layers(self.latent_size // 2, width) for _ in range(blocks))
        self.log_scale = nn.Parameter(torch.zeros(self.latent_size))

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return the lower bound log q(y) - D log 128 of log P(x), with y in [-1, 1), [B]."""
        z, determinant = self.to_z(2 * dequantised(images, noise) - 1)
        # The logistic density sigma(z) sigma(-z).
        prior = (F.logsigmoid(z) + F.logsigmoid(-z)).sum(1)
        return prior + determinant - self.latent_size * math.log(LEVELS / 2)

    def to_z(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return z [B, D] and log |det dz/dy| [B] of y [B, C, S, S]."""
        halves = list(y.reshape(len(y), -1, 2).unbind(2))
        for number, coupling in enumerate(self.couplings):
            halves[number % 2] = halves[number % 2] + coupling(halves[1 - number % 2]).to(y.dtype)
        z = torch.stack(halves, 2).flatten(1) * self.log_scale.exp()
        return z, self.log_scale.sum().expand(len(y))

    def of_z(self, z: Tensor) -> Tensor:
        """Return y [B, C, S, S] of z [B, D]."""
        halves = list((z * torch.exp(-self.log_scale)).reshape(len(z), -1, 2).unbind(2))
        for number in reversed(range(len(self.couplings))):
            halves[number % 2] = halves[number % 2] - self.couplings[number](halves[1 - number % 2]).to(z.dtype)
        return torch.stack(halves, 2).view(-1, *self.shape)

    def from_z(self, z: Tensor, noise: KeyedNoise) -> Tensor:
        """Return the images that z ~ N(0, I) [B, D] stand for: their quantiles are those of the logistic prior."""
        uniform = (0.5 * torch.erfc(-z / math.sqrt(2))).clamp(LEAST, 1 - LEAST)
        return quantised((self.of_z(torch.logit(uniform)) + 1) / 2)


def _layers(half: int, width: int) -> nn.Sequential:
    last = nn.Linear(width, half)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(half, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)


def nice(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    shape = (data.channels, data.image_size, data.image_size)
    return {"density": Nice(shape, model.width, model.blocks or 4)}
