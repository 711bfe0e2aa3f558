"""Augmentation of real and generated images alike before the discriminator sees them.

Shapes: B batch, C channels, S size. A transform takes (images [B, C, S, S], noise, name) and gives images of the same
shape; all can be differentiated, so that the generator learns through them. Each call has a `name` of its own.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import ObjectiveConfig
from ganrun.rng import KeyedNoise

Transform = Callable[[Tensor, KeyedNoise, str], Tensor]


class Augmentation:
    """T, the transforms of a config, one after the other; without any the images as they are.

    Args:
        objective: the section of the config.
    """

    def __init__(self, objective: ObjectiveConfig) -> None:
        self.adaptive: AdaptiveAugmentation | None = None
        """The one whose strength follows the discriminator, if there is one."""
        self.transforms: list[Transform] = [DIFFAUGMENT[name] for name in objective.diffaugment]
        if objective.instance_noise:
            self.transforms.append(InstanceNoise(objective.instance_noise, objective.instance_noise_images))
        if objective.ada_target:
            self.adaptive = AdaptiveAugmentation(objective.ada_target, objective.ada_images)
            self.transforms.insert(0, self.adaptive)

    def __call__(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """The images [B, C, S, S] as the discriminator sees them."""
        for transform in self.transforms:
            images = transform(images, noise, name)
        return images


# DiffAugment: Zhao et al. 2020 (arXiv:2006.10738), with the paper's ranges.


def color(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """Brightness within +-0.5, saturation times 0 to 2, contrast times 0.5 to 1.5."""
    brightness, saturation, contrast = noise.uniform(3, len(images), 1, 1, 1, name=f"{name}/color").unbind()
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """By whole pixels, within +-1/8 of the size each way; what comes in from outside is 0."""
    size, count = images.shape[-1], len(images)
    reach = size // 8
    moved = (noise.uniform(2, count, 1, name=f"{name}/translation") * (2 * reach + 1)).floor().long()
    rows, columns = torch.arange(size, device=images.device) + moved  # 0 to size - 1 + 2 reach, of the padded image
    padded = F.pad(images, (reach, reach, reach, reach))
    padded = torch.take_along_dim(padded, rows.view(count, 1, size, 1), dim=2)
    return torch.take_along_dim(padded, columns.view(count, 1, 1, size), dim=3)


def cutout(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """A square of half the size, centred anywhere, becomes 0."""
    size = images.shape[-1]
    centre = (noise.uniform(2, len(images), 1, name=f"{name}/cutout") * size).floor()
    pixels = torch.arange(size, device=images.device)
    rows, columns = ((pixels - centre + size // 4) // (size // 2) == 0).unbind()
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


DIFFAUGMENT: dict[str, Transform] = {"color": color, "translation": translation, "cutout": cutout}
"""`objective.diffaugment` -> transform."""


class InstanceNoise:
    """Normal noise that falls linearly to nothing: Sønderby et al. 2017 (arXiv:1610.04490).

    Args:
        deviation: its standard deviation at the beginning; images are in [-1, 1].
        until_images: when there is none any more.
    """

    def __init__(self, deviation: float, until_images: int) -> None:
        self.deviation, self.until_images = deviation, until_images

    def __call__(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """The images with noise of their own."""
        deviation = self.deviation * (1 - noise.images / self.until_images)
        if deviation <= 0:
            return images
        return images + deviation * noise.normal(*images.shape, name=f"{name}/noise")


# Adaptive augmentation: Karras et al. 2020 (arXiv:2006.06676), section 3; ranges from its appendix B.

TURNS = 4
"""The strength is adjusted once in so many turns of the discriminator."""


class AdaptiveAugmentation(nn.Module):
    """Augments as strongly as the discriminator overfits. Its buffers are its state: `games.game.Tracker`.

    Of the paper's transforms these are the ones it found best, on pixels, geometry and colour, each applied to an
    image with probability p. Pixels are interpolated linearly, where the paper filters before and after.

    Args:
        target: of r_t = E sign(D(x)) over real images; above it p rises, below it falls. 0.6 in the paper.
        images: real images in which p can rise from 0 to 1.
    """

    watches = "augmentation/sign"
    strength: Tensor
    signs: Tensor
    turns: Tensor
    axis: Tensor

    def __init__(self, target: float, images: int) -> None:
        super().__init__()
        self.target, self.images = target, images
        for name in ("strength", "signs", "turns"):  # p; sum of sign(D(x)) in so many turns since p was adjusted
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("axis", grey_axis(), persistent=False)

    def forward(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """The images, transformed; not in bfloat16, which has too few digits for places and colours."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(noise.dtype)
            places = geometry(self.strength, len(images), images.shape[-1], noise, f"{name}/geometry")
            grid = F.affine_grid(places[:, :2], list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
            return recolour(images, self.strength, self.axis, noise, f"{name}/colour")

    @torch.no_grad()
    def update(self, mean: Tensor, images: int) -> None:
        """After a turn on so many `images` in which the mean of sign(D(x)) over all slots was `mean`."""
        finite = torch.isfinite(mean)
        self.signs += torch.where(finite, mean, 0.0)
        self.turns += finite
        due = self.turns == TURNS
        step = torch.sign(self.signs / TURNS - self.target) * (TURNS * images / self.images)
        self.strength.copy_(torch.where(due, (self.strength + step).clamp(0, 1), self.strength))
        self.signs *= ~due
        self.turns *= ~due


def geometry(strength: Tensor, count: int, size: int, noise: KeyedNoise, name: str) -> Tensor:
    """Where each pixel is taken from, [B, 3, 3] over coordinates from -1 to 1.

    All numbers but the whole ones are as likely as their negatives, so the way back is drawn like the way there.
    """
    chance = noise.uniform(8, count, name=f"{name}/chance")
    flat = noise.uniform(6, count, name=f"{name}/flat")
    bell = noise.normal(4, count, name=f"{name}/bell")

    def sometimes(number: int, value: Tensor, probability: Tensor = strength) -> Tensor:
        return torch.where(chance[number] < probability, value, 0.0)

    # Turned before or after the stretch, or both: with probability p in all.
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
    """Brightness, contrast, light for dark, and where there are colours hue and saturation; `axis` is `grey_axis()`."""
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
    # A colour is its part along the axis of greys, and the rest, which hue turns about the axis.
    colour = light * grey + contrast * saturation * (hue.cos() * across + hue.sin() * turned)
    return torch.einsum("bij,bjhw->bihw", colour, images)


def grey_axis() -> Tensor:
    """v v^T, 1 - v v^T and (v x) for the axis of greys v, [3, 3, 3]: the parts of Rodrigues' rotation formula."""
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    turned = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
    return torch.stack([grey, torch.eye(3, dtype=torch.float64) - grey, turned])


def rotation(angle: Tensor) -> Tensor:
    """[B] -> [B, 3, 3]."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    return _matrix([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """[B], [B] -> [B, 3, 3]."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def shift(x: Tensor, y: Tensor) -> Tensor:
    """[B], [B] -> [B, 3, 3]."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
