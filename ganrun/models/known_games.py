"""Networks of games that can be solved by hand, for points of N numbers.

dirac: the Dirac-GAN of Mescheder et al. 2018 (arXiv:1801.04406, section 2), G(z) = theta, D(x) = psi x, with data that
is the single point 0. Its only equilibrium is theta = psi = 0. With objective.loss: wasserstein V = -theta psi: the
bilinear game.

linear_quadratic: G(z) = a z + b with z ~ N(0, I), D(x) = w x^2 / 2 + v x, a linear generator against a quadratic
discriminator (Nagarajan & Kolter 2017, arXiv:1706.04156, section 4; Feizi et al. 2017, arXiv:1710.10793), each number
for itself. With data N(0, s^2) its equilibrium is |a| = s, b = v = w = 0.

Both begin away from the equilibrium, always at the same place: how they move is then theory alone.

Shapes: B batch, N numbers of a point.
"""

import math

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig


class DiracGenerator(nn.Module):
    """Noise z [B, Z] -> the point theta, [B, N, 1, 1]. Of z only the number of points counts."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(numbers))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return theta for each z, [B, N, 1, 1]."""
        return self.theta.expand(len(z), -1)[:, :, None, None]

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return theta, of points of one number."""
        return _named(theta=self.theta)


class DiracDiscriminator(nn.Module):
    """Points [B, N, 1, 1] -> logits psi x, [B]."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(numbers))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits [B]."""
        return images.flatten(1) @ self.psi

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return psi, of points of one number."""
        return _named(psi=self.psi)


class AffineGenerator(nn.Module):
    """Noise z [B, N] -> points a z + b, [B, N, 1, 1], whose density is a normal."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((numbers,), 0.5))
        self.b = nn.Parameter(torch.full((numbers,), 0.5))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return points [B, N, 1, 1] for z [B, N]."""
        return (self.a * z + self.b)[:, :, None, None]

    def log_prob(self, points: Tensor) -> Tensor:
        """Return log N(x; b, a^2) of points [B, N, 1, 1], for z ~ N(0, I), in nats, [B]."""
        squares = ((points.flatten(1) - self.b) / self.a).square()
        return (-0.5 * (squares + math.log(2 * math.pi)) - self.a.abs().log()).sum(1)

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return a and b, of points of one number."""
        return _named(a=self.a, b=self.b)


class QuadraticDiscriminator(nn.Module):
    """Points [B, N, 1, 1] -> logits w x^2 / 2 + v x, [B]."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(numbers))
        self.v = nn.Parameter(torch.zeros(numbers))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits [B]."""
        x = images.flatten(1)
        return x.square() @ self.w / 2 + x @ self.v

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return w and v, of points of one number."""
        return _named(w=self.w, v=self.v)


def dirac(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the Dirac-GAN."""
    return {"generator": DiracGenerator(data.channels), "discriminator": DiracDiscriminator(data.channels)}


def linear_quadratic(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the linear-quadratic game."""
    return {"generator": AffineGenerator(data.channels), "discriminator": QuadraticDiscriminator(data.channels)}


def _named(**parameters: Tensor) -> dict[str, Tensor]:
    """Return parameters of one number by name; those of more are not logged."""
    return {name: value[0] for name, value in parameters.items() if value.numel() == 1}
