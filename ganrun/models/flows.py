"""Layers of normalizing flows: invertible maps x -> z with the logarithm of the determinant of their Jacobian.

    log p(x) = log N(z; 0, I) + log |det dz/dx|   (Dinh et al. 2015, arXiv:1410.8516, eq. 2)

Shapes: B batch, C channels, H and W pixels, F width of the networks within.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.models.density import LEVELS, AddOverRanks, Density, Passes, dequantised, quantised, standard_normal
from ganrun.models.precision import full_precision
from ganrun.rng import KeyedNoise

MARGIN = 0.05
"""Distance of images from 0 and 1 before the logit: Dinh et al. 2017 (arXiv:1605.08803), section 4.1."""
LEAST_DEVIATION = 1e-3
"""Bound of the deviations that ActNorm divides by at its beginning: a channel may be constant in the first batch."""


class Layer(nn.Module):
    """An invertible map."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log |det dz/dx| [B] for x [B, ...]."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> Tensor:
        """Return x for z."""
        raise NotImplementedError


class Logit(Layer):
    """[0, 1) -> the real line: logit(m + (1 - 2 m) x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant."""
        inside = MARGIN + (1 - 2 * MARGIN) * x
        slopes = math.log(1 - 2 * MARGIN) - inside.log() - torch.log1p(-inside)
        return torch.logit(inside), slopes.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x, in [-m, 1 + m]."""
        return (torch.sigmoid(z) - MARGIN) / (1 - 2 * MARGIN)


class ActNorm(Layer):
    """Scale and shift of each channel: Kingma & Dhariwal 2018 (arXiv:1807.03039), section 3.1.

    Unlike batch norm, which RealNVP has in its place, it has no statistics of a batch, so it is a fixed map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale, self.shift = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))
        self.initialising = False
        """True: the next pass sets scale and shift so that its outputs have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant."""
        if self.initialising:
            self._set(x)
        pixels = x.shape[2] * x.shape[3]
        return (x + self.shift) * self.log_scale.exp(), (pixels * self.log_scale.sum()).expand(len(x))

    @torch.no_grad()
    def _set(self, x: Tensor) -> None:
        deviation = x.std((0, 2, 3), correction=0, keepdim=True).clamp(min=LEAST_DEVIATION)
        self.shift.copy_(-x.mean((0, 2, 3), keepdim=True))
        self.log_scale.copy_(-deviation.log())

    def inverse(self, z: Tensor) -> Tensor:
        """Return x."""
        return z * torch.exp(-self.log_scale) - self.shift


class InvertibleConvolution(Layer):
    """A 1x1 convolution W = P L (U + diag(s)) with a random rotation to begin with (arXiv:1807.03039, eqs. 10 and 11).

    P and the signs of s stay; |s| is learned as its logarithm, so that the determinant cannot become 0.
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return L with ones on its diagonal, and U with s on its own."""
        ones = torch.eye(len(self.signs), dtype=self.lower.dtype, device=self.lower.device)
        lower, upper = self.lower.tril(-1) + ones, self.upper.triu(1)
        return lower, upper + torch.diag(self.signs * self.log_diagonal.exp())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant."""
        lower, upper = self._factors()
        z = F.conv2d(x, (self.permutation @ lower @ upper)[:, :, None, None])
        return z, (x.shape[2] * x.shape[3] * self.log_diagonal.sum()).expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Return x, by two triangular systems."""
        lower, upper = self._factors()
        flat = self.permutation.T @ z.flatten(2)
        flat = torch.linalg.solve_triangular(lower, flat, upper=False, unitriangular=True)
        x: Tensor = torch.linalg.solve_triangular(upper, flat, upper=True).view_as(z)
        return x


class Coupling(Layer):
    """z_a = x_a, z_b = (x_b + t(x_a)) exp(s(x_a)) on two parts of x, with s > -2.2 and below 2.2.

    Dinh et al. 2017 (arXiv:1605.08803), eqs. 4 and 5, with the shift first as in Glow's code; without s it is the
    additive coupling of NICE (arXiv:1410.8516, eq. 9). s is the bounded 2.2 tanh, so that its inverse stays exact.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_a and x_b."""
        first, second = x.chunk(2, dim=1)
        return first, second

    def join(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Return x of x_a and x_b."""
        return torch.cat([kept, changed], dim=1)

    def _of(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self.network(kept).to(kept.dtype).chunk(2, dim=1)
        return shift, BOUND * torch.tanh(scale / BOUND)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant."""
        kept, changed = self.split(x)
        shift, log_scale = self._of(kept)
        return self.join(kept, (changed + shift) * log_scale.exp()), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x."""
        kept, changed = self.split(z)
        shift, log_scale = self._of(kept)
        return self.join(kept, changed * torch.exp(-log_scale) - shift)


BOUND = 2.2
"""Bound of the log-scales of a coupling: factors from 1/9 to 9."""


class Squeeze(Layer):
    """[B, C, H, W] -> [B, 4 C, H / 2, W / 2]: each square of 2x2 pixels becomes channels (arXiv:1605.08803, fig. 3)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and zeros."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Return x."""
        return F.pixel_shuffle(z, 2)


class Split(Layer):
    """Factors half of the channels out: z_b | x_a ~ N(m(x_a), s(x_a)^2) (arXiv:1605.08803, section 3.6; Glow's code).

    The half that goes on is followed by nothing: `Sequence` keeps the standardised other half aside.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = zero_convolution(channels // 2, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = [x_a, (x_b - m) / s] and the log-determinant."""
        kept, aside = x.chunk(2, dim=1)
        mean, log_scale = self._of(kept)
        return torch.cat([kept, (aside - mean) * torch.exp(-log_scale)], dim=1), -log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x."""
        kept, aside = z.chunk(2, dim=1)
        mean, log_scale = self._of(kept)
        return torch.cat([kept, aside * log_scale.exp() + mean], dim=1)

    def _of(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.network(kept).to(kept.dtype).chunk(2, dim=1)
        return mean, log_scale


class Sequence(nn.Module):
    """Layers one after the other. What a `Split` puts aside goes straight to the output, flat and before the rest."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z [B, C H W] and the log-determinant."""
        determinants, aside = [], []
        for layer in self.layers:
            x, determinant = layer(x)
            determinants.append(determinant)
            if isinstance(layer, Split):
                x, put = x.chunk(2, dim=1)
                aside.append(put.flatten(1))
        return torch.cat([*aside, x.flatten(1)], dim=1), torch.stack(determinants).sum(0)

    def inverse_of(self, z: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Return x [B, C, H, W] of this shape [C, H, W] for z [B, C H W]."""
        shapes, channels, height = [], shape[0], shape[1]
        for layer in self.layers:
            if isinstance(layer, Squeeze):
                channels, height = 4 * channels, height // 2
            elif isinstance(layer, Split):
                channels //= 2
                shapes.append((channels, height, height))
        sizes = [*(math.prod(each) for each in shapes), channels * height * height]
        *aside, x = torch.split(z, sizes, dim=1)
        x = x.reshape(-1, channels, height, height)
        for layer in reversed(list(self.layers)):
            if isinstance(layer, Split):
                x = torch.cat([x, aside.pop().reshape(-1, *shapes.pop())], dim=1)
            x = cast(Layer, layer).inverse(x)
        return x


class Flow(Density):
    """A flow over dequantised images.

    Args:
        sequence: the flow, from logits of images to z.
        shape: C, H and W.
    """

    bound = "uniform dequantisation"

    def __init__(self, sequence: Sequence, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.sequence, self.shape, self.logit = sequence, shape, Logit()
        self.latent_size = math.prod(shape)

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return the lower bound log q(y) - D log 256 of log P(x), with y the dequantised images, [B]."""
        return self.log_density(dequantised(images, noise)) - self.latent_size * math.log(LEVELS)

    def log_density(self, y: Tensor) -> Tensor:
        """Return log q(y) of y [B, C, H, W] in [0, 1), [B]."""
        x, determinant = self.logit(y)
        # Low precision would leave the map, and the inverse of its weights, to rounding.
        with full_precision(x.device):
            z, further = self.sequence(x)
        nats: Tensor = standard_normal(z) + determinant + further
        return nats

    def from_z(self, z: Tensor, noise: KeyedNoise) -> Tensor:
        """Return the images that z [B, Z] are those of, [B, C, H, W]."""
        return quantised(self.logit.inverse(self.sequence.inverse_of(z, self.shape)))

    @torch.no_grad()
    def initialise(self, passes: Passes, add_over_ranks: AddOverRanks, em_passes: int = 0) -> None:
        """Set the ActNorm layers by the first batch: on rank 0 that of its first samples."""
        found = next(passes(), None)
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        if found is None or not norms:
            return
        for norm in norms:
            norm.initialising = True
        self.log_prob(*found)
        for norm in norms:
            norm.initialising = False


def convolutions(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return the network of a coupling: 3x3, 1x1 and 3x3 convolutions (arXiv:1807.03039, section 5)."""
    first, second = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), zero_convolution(width, outputs))


def zero_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that begins at zero, so that its coupling begins as the identity."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
