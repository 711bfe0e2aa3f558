"""Augmentation by ADA's transforms: Karras et al. 2020 (arXiv:2006.06676), section 3 and appendix B.

Shapes and names are those of augment.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganrun.config.schedules import Schedule, value_at
from ganrun.games.ada_transforms import SampledTransforms, transform_sampler
from ganrun.games.resampling import amplify, warp
from ganrun.models.given import Given
from ganrun.models.precision import full_precision
from ganrun.rng import KeyedNoise

TURNS = 4
"""Discriminator turns between two adjustments of p (the paper: 4 minibatches)."""


class AdaptiveAugmentation(nn.Module):
    """Adaptive discriminator augmentation (ADA): transforms with a probability p that follows D's overfitting.

    p may instead be fixed, or have a schedule.

    Each transform is applied to an image with probability p. A `games.game.Tracker`: its buffers are its state.

    Args:
        transforms: groups of transforms, names in `ada_transforms.GROUPS`.
        target: target of r_t = E sign(D(x)) over real images, 0.6 in the paper. p rises while r_t is above it, and
            falls while it is below.
        images: real images over which p can rise from 0 to 1, 500,000 in the paper.
        probability: p, if it is not to adapt; 0: it adapts.
    """

    watches = "logit_sign/real"
    strength: Tensor
    signs: Tensor
    turns: Tensor

    def __init__(
        self, transforms: Sequence[str], target: float, images: int, probability: float | Schedule = 0.0
    ) -> None:
        super().__init__()
        self.transforms, self.target, self.images, self.probability = tuple(transforms), target, images, probability
        for name in ("strength", "signs", "turns"):  # p; sum of sign(D(x)) and turns since p was adjusted
            self.register_buffer(name, torch.zeros(()))

    def strength_in(self, noise: KeyedNoise) -> Tensor:
        """Return p in this turn, a scalar."""
        if not self.probability:
            return self.strength
        return noise.scheduled(lambda images: value_at(self.probability, images), "augmentation/probability")

    def forward(
        self, images: Tensor, pictures: Given, noise: KeyedNoise, player: str, side: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return augmented images [B, C, S, S], and the pictures of their condition, moved and cut alike.

        With pictures, real and generated images of a turn are moved alike: they share their condition. Autocast is off:
        bf16 is too coarse for places and colours. An image to which no transform is applied stays as it is, to the bit.

        Args:
            images: in [-1, 1].
            pictures: by name.
            noise, player, side: as in `Augmentation`.
        """
        with full_precision(images.device):
            images, name = images.to(noise.dtype), f"{player}/{side}"
            sampled = self.sample(images, noise, name)
            if pictures:
                sampled = sampled.moved_as(self.sample(images, noise, player))
            pictures = {key: self._move(picture.to(noise.dtype), sampled) for key, picture in pictures.items()}
            return self._alter(images, sampled, noise, name), pictures

    def sample(self, images: Tensor, noise: KeyedNoise, name: str) -> SampledTransforms:
        """Draw the transforms of images, of which only the shape matters."""
        count, channels, size, _ = images.shape
        sampler = transform_sampler(self.transforms, channels, size, images.device, noise.dtype)
        return sampler.draw(self.strength_in(noise), count, noise, f"{name}/ada")

    def _move(self, picture: Tensor, sampled: SampledTransforms) -> Tensor:
        """Return a picture moved and cut as its image."""
        moved = self._cut(self._warp(picture, sampled), sampled)
        return torch.where(sampled.applied[:, : sampled.moving].any(1).view(-1, 1, 1, 1), moved, picture)

    def _alter(self, images: Tensor, sampled: SampledTransforms, noise: KeyedNoise, name: str) -> Tensor:
        """Return images with all transforms, in the paper's order."""
        changed = self._warp(images, sampled)
        if "color" in self.transforms:
            changed = recolour(changed, sampled)
        if "filter" in self.transforms:
            changed = amplify(changed, sampled.bands)
        if "noise" in self.transforms:
            changed = torch.addcmul(
                changed, sampled.noise_deviation, noise.normal(*images.shape, name=f"{name}/ada/noise")
            )
        return torch.where(sampled.applied.any(1).view(-1, 1, 1, 1), self._cut(changed, sampled), images)

    def _warp(self, images: Tensor, sampled: SampledTransforms) -> Tensor:
        moves = {"blit", "geometric"} & set(self.transforms)
        return warp(images, sampled.linear, sampled.offset) if moves else images

    def _cut(self, images: Tensor, sampled: SampledTransforms) -> Tensor:
        """Set a square of half the size to 0 (mid-grey) in images that are cut."""
        if "cutout" not in self.transforms:
            return images
        size = images.shape[-1]
        pixels = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
        columns, rows = ((pixels - sampled.cut[:, :, None]).abs() < 0.5).unbind(1)
        rows = rows & sampled.applied[:, sampled.moving - 1, None]
        return images * ~(rows[:, :, None] & columns[:, None])[:, None]

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


def recolour(images: Tensor, sampled: SampledTransforms) -> Tensor:
    """Return images [B, C, S, S] with other colours, by one matrix per image if they are RGB."""
    if images.shape[1] != 3:
        return images * sampled.colour[..., None] + sampled.colour_offset[..., None]
    return torch.baddbmm(sampled.colour_offset, sampled.colour, images.flatten(2)).view(images.shape)
