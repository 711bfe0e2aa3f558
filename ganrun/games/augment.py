"""Differentiable augmentation of real and generated images at the input of the discriminator.

Shapes: B batch, C channels, S image size in pixels. A transform maps (images [B, C, S, S] in [-1, 1], noise, name) to
images of the same shape. Gradients flow through it to the generator. `name` keys the random numbers: calls with the
same name transform alike.

Pictures of a condition are moved, cut and warped with the image that they belong to. Colours and noise change the image
alone: D is to find out whether picture and image belong together, and a picture is never generated.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from ganrun.config.schedules import Schedule
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.games.adaptive_augmentation import AdaptiveAugmentation
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

Transform = Callable[[Tensor, KeyedNoise, str], Tensor]


class Augmentation:
    """T: all transforms of a config, ADA's first; the identity if there are none.

    Args:
        objective: section `objective` of the config.
        pictures: names of the condition's pictures.
    """

    def __init__(self, objective: ObjectiveConfig, pictures: Collection[str] = ()) -> None:
        self.pictures = pictures
        self.adaptive: AdaptiveAugmentation | None = None
        """ADA's transforms, or None if both `ada_target` and `ada_probability` are 0."""
        self.transforms: list[Transform] = [DIFFAUGMENT[name] for name in objective.diffaugment]
        """Those after them."""
        self._noise: InstanceNoise | None = None
        if objective.instance_noise:
            self._noise = InstanceNoise(objective.instance_noise, objective.instance_noise_images)
            self.transforms.append(self._noise)
        if objective.ada_target or objective.ada_probability:
            self.adaptive = AdaptiveAugmentation(
                objective.ada_transforms, objective.ada_target, objective.ada_images, objective.ada_probability
            )

    def has_noise(self, images: int) -> bool:
        """Return True if a round that begins after `images` has instance noise."""
        return self._noise is not None and self._noise.is_active(images)

    def __call__(self, images: Tensor, given: Given, noise: KeyedNoise, player: str, side: str) -> tuple[Tensor, Given]:
        """Return augmented images [B, C, S, S], and their condition.

        With pictures, real and generated images of a turn are moved alike: they share their condition.

        Args:
            images: real or generated images in [-1, 1].
            given: their condition.
            noise: noise of the turn.
            player: name of the player whose turn it is.
            side: `real` or `fake`.
        """
        pictures = {name: given[name] for name in self.pictures}
        if self.adaptive:
            images, pictures = self.adaptive(images, pictures, noise, player, side)
        for transform in self.transforms:
            moves = bool(pictures) and transform in (translation, cutout)
            name = player if moves else f"{player}/{side}"
            images = transform(images, noise, name)
            if moves:
                pictures = {key: transform(picture, noise, name) for key, picture in pictures.items()}
        return images, {**given, **pictures}


# DiffAugment: Zhao et al. 2020 (arXiv:2006.10738), with the ranges of the paper.


def color(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """Shift brightness by -0.5 to 0.5, scale saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = noise.uniform(3, len(images), 1, 1, 1, name=f"{name}/color").unbind()
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """Translate by whole pixels, up to S / 8 on each axis, padded with 0 (mid-grey)."""
    size, count = images.shape[-1], len(images)
    reach = size // 8
    moved = (noise.uniform(2, count, 1, name=f"{name}/translation") * (2 * reach + 1)).floor().long()
    rows, columns = torch.arange(size, device=images.device) + moved  # 0 .. S - 1 + 2 reach: in the padded image
    padded = F.pad(images, (reach, reach, reach, reach))
    padded = torch.take_along_dim(padded, rows.view(count, 1, size, 1), dim=2)
    return torch.take_along_dim(padded, columns.view(count, 1, 1, size), dim=3)


def cutout(images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
    """Set a square of side S / 2, centred on a random pixel, to 0 (mid-grey)."""
    size = images.shape[-1]
    centre = (noise.uniform(2, len(images), 1, name=f"{name}/cutout") * size).floor()
    pixels = torch.arange(size, device=images.device)
    rows, columns = ((pixels - centre + size // 4) // (size // 2) == 0).unbind()
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


DIFFAUGMENT: dict[str, Transform] = {"color": color, "translation": translation, "cutout": cutout}
"""Transforms by their name in `objective.diffaugment`."""


class InstanceNoise:
    """Gaussian noise on D's input, annealed: Sønderby et al. 2017 (arXiv:1610.04490).

    Args:
        deviation: standard deviation for images in [-1, 1]: a schedule, or that at the beginning.
        until_images: real images over which a deviation that is a number goes linearly to 0.
    """

    def __init__(self, deviation: float | Schedule, until_images: int) -> None:
        if not isinstance(deviation, Schedule):
            deviation = Schedule.model_validate(
                {"schedule": "linear", "from": deviation, "to": 0.0, "until_images": until_images}
            )
        self.deviation = deviation

    def __call__(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """Return images + N(0, deviation^2), independent per pixel."""
        if not self.is_active(noise.round_start):
            return images
        deviation = noise.scheduled(self.deviation.at, f"{name}/deviation")
        return images + deviation * noise.normal(*images.shape, name=f"{name}/noise")

    def is_active(self, images: int) -> bool:
        """Return True if a round that begins after `images` has noise."""
        return images < self.deviation.until_images or self.deviation.to > 0
