"""Images for a picture of a user, of any size: whole where the network takes it, else in tiles.

Shapes: C channels of the picture, C' of the images, H and W pixels, F `Condition.factor` (above 1 if pictures are
enlarged), S the size of the run's pictures: its image size over F.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ganrun.config.registry import NETWORKS
from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.games.conditions import UserInput
from ganrun.inference.sampling import Sampler, write_image
from ganrun.rng import KeyedNoise

LARGEST = 1024
"""Longest side in pixels that goes through a network at once, which bounds memory."""
OVERLAP = 4
"""Neighbouring tiles share at least 1 / OVERLAP of a tile."""


class Translator:
    """EMA generator of a checkpoint, for pictures of a user as condition.

    A network whose family is `fully_convolutional` takes multiples of S: a picture is padded to them by reflection.
    Other networks take tiles of S x S. Tiles overlap and are blended linearly; all have the same noise.

    Args:
        sampler: the checkpoint.
        seed: seed of the noise.
        resize: scale a picture to S pixels on its shorter side, and its images back.

    Raises:
        UserError: the run continues clips.
    """

    def __init__(self, sampler: Sampler, seed: int, resize: bool) -> None:
        if sampler.game.condition.frames:
            raise UserError("--input: this run continues clips; say how many frames to predict: --frames 10")
        config = sampler.config
        self.game, self.seed, self.resize = sampler.game, seed, resize
        self.factor = sampler.game.condition.factor
        self.size = config.data.shape(config.objective.target)[1] // self.factor
        self.fully_convolutional = NETWORKS[config.model.name].fully_convolutional
        parameter = next(next(iter(self.game.networks.values())).parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def write(
        self,
        where: str,
        pixels: NDArray[np.uint8],
        out: Path,
        name: str,
        count: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Write the images of a picture: `out`/NAME.png, or NAME-0.png, NAME-1.png, ... if they are several.

        Raises:
            UserError: see `images`, or a file cannot be written.
        """
        for number, image in enumerate(self.images(where, pixels, count, mask, Path(name).name)):
            write_image(out / f"{name}{f'-{number}' if count > 1 else ''}.png", to_uint8(image))

    def images(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        count: int,
        mask: NDArray[np.bool_] | None = None,
        file: str = "",
    ) -> list[Tensor]:
        """Return `count` images for a picture, each [C', F H, F W] in [-1, 1]. Image i depends on the seed and i.

        Args:
            name: where the picture comes from, for messages.
            pixels: the picture, [H, W, C].
            count: number of images.
            mask: True in the hole, [H, W], for a run that fills holes; None: it is drawn.
            file: name of its file, without folder and ending, by which a mask is drawn.

        Raises:
            UserError: the run takes no picture, this one is too small, its mask cannot be used, or several images would
                all be the same.
        """
        whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(self.dtype).div(127.5).sub(1)
        picture, size, condition = whole, whole.shape[1:], self.game.condition
        if not condition.pictures:
            condition.from_user(UserInput(name, whole))  # It says what it takes instead.
        if self.resize:
            picture = _resized(whole, [round(side * self.size / min(size)) for side in size])
        elif min(size) < self.size:
            raise UserError(
                f"{name}: {size[1]}x{size[0]} pixels, but the network takes at least {self.size}x{self.size}; give a "
                "larger picture, or --resize"
            )
        item = condition.complete(UserInput(name, whole, None if mask is None else torch.from_numpy(mask), file=file))
        small = replace(item, picture=picture, mask=_resized_mask(item.mask, picture.shape[1:]))
        found = [self._image(small, number) for number in range(count)]
        if count > 1 and torch.equal(found[0], found[1]):
            raise UserError(f"--count {count}: this run's generator has no noise, so all images would be the same")
        if not self.resize:
            return found
        scaled = [_resized(image, [self.factor * side for side in size]) for image in found]
        # What is known of the picture is taken from the picture itself, not from the scaled one.
        return [condition.finish(condition.from_user(item), image[None])[0] for image in scaled]

    @torch.inference_mode()
    def _image(self, item: UserInput, number: int) -> Tensor:
        """Return image `number` for a picture whose sides are at least S."""
        assert item.picture is not None
        height, width = item.picture.shape[1:]
        tile = self._tile(height), self._tile(width)
        padding = (0, max(tile[1] - width, 0), 0, max(tile[0] - height, 0))
        picture = F.pad(item.picture[None], padding, mode="reflect")[0]
        mask = None if item.mask is None else F.pad(item.mask[None, None].float(), padding, mode="reflect")[0, 0] > 0
        factor, (rows, columns) = self.factor, picture.shape[1:]
        window = _ramp(factor * tile[0])[:, None] * _ramp(factor * tile[1])
        weights, total = torch.zeros(factor * rows, factor * columns), torch.zeros(())
        for top in starts(rows, tile[0]):
            for left in starts(columns, tile[1]):
                inside = (slice(top, top + tile[0]), slice(left, left + tile[1]))
                part = replace(item, picture=picture[:, *inside], mask=None if mask is None else mask[inside])
                image = self._generate(part, number)
                if not total.dim():
                    total = image.new_zeros(len(image), *weights.shape)
                down = slice(factor * top, factor * (top + tile[0]))
                across = slice(factor * left, factor * (left + tile[1]))
                total[..., down, across] += image * window
                weights[down, across] += window
        return (total / weights)[:, : factor * height, : factor * width]

    def _tile(self, side: int) -> int:
        """Return the side of tiles for a side of a picture, a multiple of S."""
        if not self.fully_convolutional:
            return self.size
        return self.size * min(-(-side // self.size), max(LARGEST // self.size, 1))

    def _generate(self, item: UserInput, number: int) -> Tensor:
        noise = KeyedNoise(self.seed, 0, 0, number, self.device, self.dtype)
        given = self.game.condition.from_user(item)
        return self.game.sample(self.game.networks, 1, noise.under("input"), given)[0]


def starts(side: int, tile: int) -> list[int]:
    """Return where the tiles of a side begin: evenly spaced, from 0 to the last that fits."""
    if side <= tile:
        return [0]
    shared = tile // OVERLAP
    count = -(-(side - shared) // (tile - shared))
    return [round(number * (side - tile) / (count - 1)) for number in range(count)]


def _ramp(tile: int) -> Tensor:
    """Return the weights of a tile along a side, [tile]: they rise over what neighbours share, and fall alike."""
    shared = max(tile // OVERLAP, 1)
    to_edge = torch.minimum(torch.arange(1, tile + 1), torch.arange(tile, 0, -1))
    return to_edge.clamp(max=shared) / shared


def _resized_mask(mask: Tensor | None, size: torch.Size) -> Tensor | None:
    """Return a mask bool [H, W] in another size: what touches the hole is the hole."""
    if mask is None or mask.shape == size:
        return mask
    return F.adaptive_max_pool2d(mask[None].float(), list(size))[0] > 0


def _resized(picture: Tensor, size: list[int]) -> Tensor:
    """Return [C, H, W] in another size, filtered against aliasing."""
    return F.interpolate(picture[None], size, mode="bicubic", antialias=True)[0].clamp(-1, 1)
