"""Augmentation by ADA's transforms: Karras et al. 2020 (arXiv:2006.06676), section 3; ranges from its appendix B.

Shapes and names are those of augment.py.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schedules import Schedule, value_at
from ganrun.models.precision import full_precision
from ganrun.rng import KeyedNoise

TURNS = 4
"""Discriminator turns between two adjustments of p (the paper: 4 minibatches)."""


class AdaptiveAugmentation(nn.Module):
    """Adaptive discriminator augmentation (ADA): transforms with a probability p that follows D's overfitting.

    p may instead be fixed, or have a schedule.

    Has the transforms the paper recommends: pixel blitting, geometry and colour, each applied to an image with
    probability p. Resampling is bilinear; the paper filters against aliasing. A `games.game.Tracker`: its buffers are
    its state.

    Args:
        target: target of r_t = E sign(D(x)) over real images, 0.6 in the paper. p rises while r_t is above it, and
            falls while it is below.
        images: real images over which p can rise from 0 to 1, 500,000 in the paper.
        probability: p, if it is not to adapt; 0: it adapts.
    """

    watches = "augmentation/sign"
    strength: Tensor
    signs: Tensor
    turns: Tensor
    axis: Tensor

    def __init__(self, target: float, images: int, probability: float | Schedule = 0.0) -> None:
        super().__init__()
        self.target, self.images, self.probability = target, images, probability
        for name in ("strength", "signs", "turns"):  # p; sum of sign(D(x)) and turns since p was adjusted
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("axis", grey_axis(), persistent=False)

    def strength_in(self, noise: KeyedNoise) -> Tensor:
        """Return p in this turn, a scalar."""
        if not self.probability:
            return self.strength
        return noise.scheduled(lambda images: value_at(self.probability, images), "augmentation/probability")

    def forward(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """Return augmented images."""
        return self.recolour(self.warp(images, noise, name), noise, name)

    def warp(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """Return images with moved pixels. Autocast is off: bf16 is too coarse for sampling coordinates."""
        with full_precision(images.device):
            images = images.to(noise.dtype)
            matrices = geometry(self.strength_in(noise), len(images), images.shape[-1], noise, f"{name}/geometry")
            grid = F.affine_grid(matrices[:, :2], list(images.shape), align_corners=False)
            return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def recolour(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """Return images with changed colours. Autocast is off, for the same reason."""
        with full_precision(images.device):
            return recolour(images.to(noise.dtype), self.strength_in(noise), self.axis, noise, f"{name}/colour")

    @torch.no_grad()
    def update(self, mean: Tensor, images: int) -> None:
        """Accumulate sign(D(x)); every `TURNS` turns move p by TURNS * images / self.images towards the target.

        Args:
            mean: scalar, mean of sign(D(x)) over all slots in this turn. A value that is not finite is skipped.
            images: real images in this turn.
        """
        finite = torch.isfinite(mean)
        self.signs += torch.where(finite, mean, 0.0)
        self.turns += finite
        due = self.turns == TURNS
        step = torch.sign(self.signs / TURNS - self.target) * (TURNS * images / self.images)
        self.strength.copy_(torch.where(due, (self.strength + step).clamp(0, 1), self.strength))
        self.signs *= ~due
        self.turns *= ~due


def geometry(strength: Tensor, count: int, size: int, noise: KeyedNoise, name: str) -> Tensor:
    """Draw affine maps from output to input coordinates, [count, 3, 3]; coordinates are in [-1, 1] (`F.affine_grid`).

    The paper composes maps from input to output. Angles, shifts and log scales are symmetric about 0, so the inverse
    maps have the same distribution.

    Args:
        strength: p, scalar tensor in [0, 1].
        size: S in pixels, for shifts by whole pixels.
    """
    chance = noise.uniform(8, count, name=f"{name}/chance")
    flat = noise.uniform(6, count, name=f"{name}/flat")
    bell = noise.normal(4, count, name=f"{name}/bell")

    def sometimes(number: int, value: Tensor, probability: Tensor = strength) -> Tensor:
        return torch.where(chance[number] < probability, value, 0.0)

    # Two rotations, before and after the anisotropic scaling: at least one of them happens with probability p.
    turned = 1 - (1 - strength).sqrt()
    mirrored = 1 - 2 * sometimes(0, (2 * flat[0]).floor())
    quarters = sometimes(1, (4 * flat[1]).floor()) * (math.pi / 2)
    whole_x, whole_y = (sometimes(2, ((flat[i] - 0.5) * size / 4).round()) * (2 / size) for i in (2, 3))
    scale = (sometimes(3, bell[0]) * (0.2 * math.log(2))).exp()
    before, after = (sometimes(i, (flat[i] - 0.5) * (2 * math.pi), turned) for i in (4, 5))
    stretch = (sometimes(6, bell[1]) * (0.2 * math.log(2))).exp()
    x, y = (sometimes(7, bell[i]) * (2 * 0.125) for i in (2, 3))
    return (
        scaling(mirrored, torch.ones_like(mirrored))
        @ rotation(quarters)
        @ shift(whole_x, whole_y)
        @ scaling(scale, scale)
        @ rotation(before)
        @ scaling(stretch, 1 / stretch)
        @ rotation(after)
        @ shift(x, y)
    )


def recolour(images: Tensor, strength: Tensor, axis: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """Change brightness, contrast, luma (inverted), and of RGB images hue and saturation, each with probability p.

    Args:
        images: [B, 1, S, S] or [B, 3, S, S] in [-1, 1].
        strength: p, scalar tensor in [0, 1].
        axis: `grey_axis()`.
    """
    count = len(images)
    chance = noise.uniform(5, count, 1, 1, name=f"{name}/chance") < strength
    flat = noise.uniform(2, count, 1, 1, name=f"{name}/flat")
    bell = noise.normal(3, count, 1, 1, name=f"{name}/bell")
    brightness = torch.where(chance[0], 0.2 * bell[0], 0.0)
    contrast = torch.where(chance[1], 0.5 * math.log(2) * bell[1], 0.0).exp()
    light = contrast * (1 - 2 * torch.where(chance[2], (2 * flat[0]).floor(), 0.0))
    images = images + brightness[..., None]
    if images.shape[1] == 1:
        return images * light[..., None]
    hue = torch.where(chance[3], (flat[1] - 0.5) * (2 * math.pi), 0.0)
    saturation = torch.where(chance[4], math.log(2) * bell[2], 0.0).exp()
    grey, across, turned = axis.unbind()
    # Split a colour into its part along the grey axis (luma) and the rest (chroma), which hue rotates about that axis.
    colour = light * grey + contrast * saturation * (hue.cos() * across + hue.sin() * turned)
    return torch.einsum("bij,bjhw->bihw", colour, images)


def grey_axis() -> Tensor:
    """Return v v^T, I - v v^T and [v]_x for the grey axis v = (1, 1, 1) / sqrt(3), [3, 3, 3] float64.

    They are the terms of Rodrigues' rotation formula, to rotate hues about v.
    """
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    turned = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
    return torch.stack([grey, torch.eye(3, dtype=torch.float64) - grey, turned])


def rotation(angle: Tensor) -> Tensor:
    """Return homogeneous rotation matrices [B, 3, 3] for angles [B] in radians."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return _matrix([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Return homogeneous scaling matrices [B, 3, 3] for factors [B] of each axis."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def shift(x: Tensor, y: Tensor) -> Tensor:
    """Return homogeneous translation matrices [B, 3, 3] for offsets [B] along each axis."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
