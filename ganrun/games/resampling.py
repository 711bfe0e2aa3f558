"""Resampling of images without aliasing, as ADA warps and filters them (arXiv:2006.06676, appendix B).

Shapes: B batch, C channels, S image size in pixels. Beyond its border an image is reflected. All operations are linear
in the image and can be differentiated as often as needed.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Lowpass filter of the least asymmetric orthogonal wavelet with six vanishing moments: Daubechies 1992, Ten Lectures
on Wavelets, table 6.3."""
SYM2 = tuple(x / (4 * math.sqrt(2)) for x in (1 + math.sqrt(3), 3 + math.sqrt(3), 3 - math.sqrt(3), 1 - math.sqrt(3)))
"""That with two vanishing moments, in closed form."""
CENTRE = 5
"""Tap of SYM6 that lies on the pixel."""
LAG = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - CENTRE
"""How far the centre of mass of SYM6 shifts an image, in pixels of the doubled resolution."""
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power in each octave, from low to high frequencies."""


class Doubling(NamedTuple):
    """Matrices of images of one size: to the doubled resolution and back.

    The filter is orthogonal to its even shifts, so `down` of `up` of an image is the image.

    Attributes:
        up: [2 S + 1, S]: its samples are at the pixels, between them, and on both borders.
        down: [S, 2 S + 10]: it reads beyond the border what it needs.
        places: coordinates that `down` reads, in -1 .. 1 of the image, [2 S + 10].
    """

    up: Tensor
    down: Tensor
    places: Tensor


@functools.cache
def doubling(size: int, device: torch.device, dtype: torch.dtype) -> Doubling:
    """Return the matrices for images of `size` pixels."""
    taps, pixels = len(SYM6), torch.arange(size)
    up = torch.zeros(2 * size + 1, size, dtype=torch.float64)
    down = torch.zeros(size, 2 * size + taps - 2, dtype=torch.float64)
    for k, tap in enumerate(SYM6):
        samples = torch.arange(-1 + (CENTRE - k + 1) % 2, 2 * size, 2)  # Pixel n is sample 2 n.
        up[samples + 1, _reflected((samples + CENTRE - k) // 2, size)] += math.sqrt(2) * tap
        down[pixels, 2 * pixels + k] += tap / math.sqrt(2)
    read = torch.arange(2 * size + taps - 2, dtype=torch.float64) - CENTRE
    places = (read - LAG + 1) / size - 1
    return Doubling(*(each.to(device, dtype) for each in (up, down, places)))


def _reflected(pixels: Tensor, size: int) -> Tensor:
    """Return the pixels that are seen at places beyond the border, which is the edge of the last pixel."""
    pixels = pixels % (2 * size)
    return torch.minimum(pixels, 2 * size - 1 - pixels)


def warp(images: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Return images whose pixel at x is that of the given ones at `linear` x + `offset`.

    Bilinear sampling at twice the resolution lies between a lowpass filter before and one after.

    Args:
        images: [B, C, S, S].
        linear, offset: [B, 2, 2] and [B, 2], for coordinates (x, y) in -1 .. 1.
    """
    matrices = doubling(images.shape[-1], images.device, images.dtype)
    places, offset = matrices.places, offset + LAG / images.shape[-1]
    grid = torch.addcmul(offset[:, None, None], places[:, None], linear[:, None, None, :, 0])
    grid = torch.addcmul(grid, places[:, None, None], linear[:, None, None, :, 1])
    sampled = Sampling.apply(_both_axes(matrices.up, images), grid)  # type: ignore[no-untyped-call]
    return _both_axes(matrices.down, sampled)


def _both_axes(matrix: Tensor, images: Tensor) -> Tensor:
    """Return A x A^T for each channel x, [B, C, H, H] for A [H, S]."""
    channels = images.reshape(-1, *images.shape[2:])
    columns = torch.bmm(matrix.expand(len(channels), -1, -1), channels)
    return (columns @ matrix.T).view(*images.shape[:2], len(matrix), len(matrix))


class Sampling(torch.autograd.Function):
    """Bilinear sampling, a linear function of the image.

    torch has no second derivative of `F.grid_sample`. The gradient with respect to the image is the transposed map, and
    that of the transposed map is the map. There is none with respect to the grid.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        """Return images [B, C, H, W] at the places of a grid [B, H', W', 2]."""
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the gradient with respect to the images."""
        (grid,) = ctx.saved_tensors
        return Transposed.apply(gradient, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class Transposed(torch.autograd.Function):
    """The transposed map of `Sampling`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradient with respect to images of a shape."""
        ctx.save_for_backward(grid)
        image = grid.new_zeros(()).expand(shape)  # Its values do not matter.
        bilinear, reflection = 0, 2
        backward = torch.ops.aten.grid_sampler_2d_backward
        return backward(gradient, image, grid, bilinear, reflection, True, (True, False))[0]  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Return the gradient with respect to the gradient."""
        (grid,) = ctx.saved_tensors
        return Sampling.apply(gradient, grid), None, None  # type: ignore[no-untyped-call]


class Octaves(NamedTuple):
    """Filters that keep one octave of frequencies each, from low to high. Their sum is the identity.

    Attributes:
        matrices: filters of images of one size along an axis, [4, S, S].
        power: expected share of the power in each, [4].
    """

    matrices: Tensor
    power: Tensor


@functools.cache
def octaves(size: int, device: torch.device, dtype: torch.dtype) -> Octaves:
    """Return the filters for images of `size` pixels.

    With H(z) of SYM2, L(z) = H(z) H(1/z) / 2 is lowpass without phase, and L(z) + L(-z) = 1. So the octaves are
    L(z) L(z^2) L(z^4), L(z) L(z^2) L(-z^4), L(z) L(-z^2) and L(-z).
    """
    taps, pixels = len(SYM2), torch.arange(size)
    shifts = range(1 - taps, taps)
    low = {shift: sum(SYM2[k] * SYM2[k + abs(shift)] for k in range(taps - abs(shift))) / 2 for shift in shifts}
    high = {shift: tap * (-1) ** shift for shift, tap in low.items()}
    passed, found = {0: 1.0}, []
    for step in (1, 2, 4):
        found.append(_product(passed, high, step))
        passed = _product(passed, low, step)
    matrices = torch.zeros(4, size, size, dtype=torch.float64)
    for matrix, octave in zip(matrices, [passed, *reversed(found)], strict=True):
        for shift, tap in octave.items():
            matrix[pixels, _reflected(pixels + shift, size)] += tap
    return Octaves(matrices.to(device, dtype), torch.tensor(BAND_POWER, device=device, dtype=dtype))


def _product(one: dict[int, float], other: dict[int, float], step: int) -> dict[int, float]:
    """Return the taps, by their shift, of A(z) B(z^step)."""
    found: dict[int, float] = {}
    for shift, tap in one.items():
        for further, weight in other.items():
            found[shift + step * further] = found.get(shift + step * further, 0.0) + tap * weight
    return found


def amplify(images: Tensor, logs: Tensor) -> Tensor:
    """Return images whose octaves have other amplitudes. Each gain is followed by one that keeps the expected power.

    Args:
        images: [B, C, S, S].
        logs: [B, 4], logarithm of the gain of each octave.
    """
    count, channels, size, _ = images.shape
    bank, power = octaves(size, images.device, images.dtype)
    squares = (2 * logs).exp()
    gains = (squares / (1 + power * (squares - 1)).prod(1, keepdim=True)).sqrt()
    filters = (gains @ bank.view(4, -1)).view(count, size, size)
    rows = (images.reshape(count, channels * size, size) @ filters.mT).view(images.shape)
    return (rows.mT.reshape(count, channels * size, size) @ filters.mT).view(images.shape).mT
