"""Condition `masked`: the image itself with a hole. G is to fill it, and known pixels are copied exactly.

Pathak et al. 2016 (arXiv:1604.07379). A hole is drawn for each image, or is a mask field of the data. Points, rows of a
table, have numbers that are missing instead.

Shapes: B batch, C channels, H and W pixels, N numbers of a point.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ganrun.config.schema import DataConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.conditions import Batch, Condition, UserInput, as_channels
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

Distance = Callable[[int, int, int, KeyedNoise], Tensor]
"""(B, H, W, noise) -> distance of each pixel from the middle of the hole, [B, H, W]; the nearest ones are the hole."""

BOXES, STROKES, JOINTS = 3, 2, 4
"""Boxes of a hole; strokes of a hole, and corners of a stroke."""


class Masked(Condition):
    """Known pixels `masked` [B, C, H, W], 0 in the hole, and `mask` [B, 1, H, W], 1 in the hole and else 0.

    Args:
        target: the image field, which is also the generated one.
        channels: C.
        holes: name in HOLES.
        share: share of the pixels in a drawn hole, between 0 and 1.
        field: field of the masks, of one channel: other than black is the hole; None: holes are drawn.
    """

    data_baselines: tuple[str, ...] = ()

    def __init__(self, target: str, channels: int, holes: str, share: float, field: str | None = None) -> None:
        self.fields = (target,) if field is None else (target, field)
        self.pictures = {"masked": channels, "mask": 1}
        self.distance, self.share, self.field = HOLES[holes], share, field
        self.baselines = {"mean": mean_of_known}
        if importlib.util.find_spec("cv2"):  # The extra `inpainting`.
            self.baselines["navier_stokes"] = navier_stokes

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the images of a batch with holes."""
        images = batch[self.fields[0]]
        mask = batch[self.field] > -0.999 if self.field else self._drawn(images, noise)
        return self._given(images, mask)

    def complete(self, item: UserInput) -> UserInput:
        """Return the user's picture with its mask, or else a drawn hole, which depends on the file name alone.

        Raises:
            UserError: there is no picture, no hole, or no known pixel, or the mask has another size.
        """
        picture, mask = self._picture(item), item.mask
        if mask is None:
            noise = KeyedNoise(0, 0, 0, 0, picture.device, picture.dtype).under(item.file)
            return replace(item, mask=self._drawn(picture, noise)[0, 0])
        if mask.shape != picture.shape[2:]:
            sizes = [f"{width}x{height}" for height, width in (mask.shape, picture.shape[2:])]
            raise UserError(f"{item.name}: the mask has {sizes[0]} pixels, but the picture {sizes[1]}; they must agree")
        if not mask.any():
            raise UserError(f"{item.name}: the mask has no hole: paint what is to be filled white, the rest black")
        if mask.all():
            raise UserError(f"{item.name}: the mask leaves no known pixel: paint what is to be kept black")
        return item

    def from_user(self, item: UserInput) -> Given:
        """Return the user's picture with its mask, or else a drawn hole."""
        item = self.complete(item) if item.mask is None else item
        assert item.mask is not None
        picture = self._picture(item)
        return self._given(picture, item.mask[None, None].to(picture.device))

    def _picture(self, item: UserInput) -> Tensor:
        if item.picture is None:
            raise UserError(f"{item.name}: this run fills holes of pictures; give a picture")
        return as_channels(item.picture[None], self.pictures["masked"])

    def show(self, given: Given) -> Tensor | None:
        """Return the known pixels, with the hole in grey."""
        return given["masked"]

    def finish(self, given: Given, image: Tensor) -> Tensor:
        """Return the generator's output in the hole, and the known pixels exactly."""
        return torch.where(given["mask"] > 0, image, given["masked"].to(image.dtype))

    def _drawn(self, images: Tensor, noise: KeyedNoise) -> Tensor:
        """Return holes [B, 1, H, W] of exactly the share of the pixels, where distances do not tie."""
        count, _, height, width = images.shape
        distance = self.distance(count, height, width, noise).flatten(1)
        size = max(1, round(self.share * height * width))
        limit = distance.kthvalue(size, 1, keepdim=True).values
        return (distance <= limit).view(count, 1, height, width)

    @staticmethod
    def _given(images: Tensor, mask: Tensor) -> Given:
        return {"masked": torch.where(mask, 0.0, images), "mask": mask.to(images.dtype)}


class MaskedPoints(Masked):
    """Known numbers `masked` [B, N, 1, 1], 0 where one is missing, and `mask` of that shape, 1 there and else 0.

    Each number is missing with the same probability, whatever its value and the others are: completely at random. What
    the data itself lacks, NaN, is always missing. A user's row has no drawn holes.

    Args:
        target: the point field, which is also the generated one.
        numbers: N.
        share: probability that a number is missing, between 0 and 1.
    """

    data_baselines = ("mean",)

    def __init__(self, target: str, numbers: int, share: float) -> None:
        self.fields, self.pictures, self.share = (target,), {"masked": numbers, "mask": numbers}, share

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the points of a batch with missing numbers."""
        points = batch[self.fields[0]]
        missing = noise.uniform(*points.shape, name="missing") < self.share
        return self._given(points, missing | points.isnan())

    def complete(self, item: UserInput) -> UserInput:
        """Refuse a picture."""
        raise UserError(f"{item.name}: this run fills tables of numbers; give a .csv")

    def from_user(self, item: UserInput) -> Given:
        """Return a user's point [N, 1, 1], which is NaN where a number is missing."""
        if item.picture is None:
            raise UserError(f"{item.name}: this run fills tables of numbers; give a .csv")
        return self._given(item.picture[None], item.picture[None].isnan())

    def show(self, given: Given) -> None:
        """Return None: a point is no picture."""


def _grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [H, 1] and columns [1, W] of the centres of pixels, from 0 to 1."""
    rows = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    columns = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    return rows[:, None], columns[None]


def center(count: int, height: int, width: int, noise: KeyedNoise) -> Tensor:
    """Return the distances from the centre, [B, H, W]: the hole is a box in the middle."""
    rows, columns = _grid(height, width, torch.zeros((), dtype=noise.dtype, device=noise.device))
    return torch.maximum((rows - 0.5).abs(), (columns - 0.5).abs()).expand(count, height, width)


def boxes(count: int, height: int, width: int, noise: KeyedNoise) -> Tensor:
    """Return the distances from the nearest of three points, [B, H, W], each with a shape: the hole is their boxes."""
    drawn = noise.uniform(count, BOXES, 3, 1, 1, name="boxes")
    row, column, shape = drawn.unbind(2)
    rows, columns = _grid(height, width, drawn)
    aspect = (2 * shape - 1).exp()  # Of the sides, from 1 / e to e.
    away = torch.maximum((rows - row).abs() * aspect.sqrt(), (columns - column).abs() / aspect.sqrt())
    return away.amin(1)


def strokes(count: int, height: int, width: int, noise: KeyedNoise) -> Tensor:
    """Return the distances from the nearest of two broken lines, [B, H, W]: the hole is thick strokes."""
    corners = noise.uniform(count, STROKES, JOINTS, 2, name="strokes")
    start, end = corners[:, :, :-1].flatten(1, 2), corners[:, :, 1:].flatten(1, 2)  # [B, segments, 2]
    rows, columns = _grid(height, width, corners)
    along = end - start
    to_row, to_column = rows - start[..., 0, None, None], columns - start[..., 1, None, None]
    length = along.square().sum(2).clamp(min=1e-6)[..., None, None]
    part = (to_row * along[..., 0, None, None] + to_column * along[..., 1, None, None]) / length
    part = part.clamp(0, 1)
    away = (to_row - part * along[..., 0, None, None]).square() + (
        to_column - part * along[..., 1, None, None]
    ).square()
    return away.amin(1)


HOLES: dict[str, Distance] = {"center": center, "boxes": boxes, "strokes": strokes}
"""By their name in `objective.masked.holes`."""


def mean_of_known(given: Given) -> Tensor:
    """Return the images [B, C, H, W] with the hole in the mean colour of the known pixels."""
    masked, known = given["masked"], 1 - given["mask"]
    mean = (masked * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(given["mask"] > 0, mean, masked)


def navier_stokes(given: Given) -> Tensor:
    """Return the images [B, C, H, W] filled by OpenCV's method: Bertalmio et al. 2001, radius 3."""
    import cv2

    levels = ((given["masked"] + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    holes = given["mask"][:, 0].byte().cpu().numpy()
    pairs = zip(levels, holes, strict=True)
    filled = [cv2.inpaint(np.ascontiguousarray(image), hole, 3, cv2.INPAINT_NS) for image, hole in pairs]
    found = torch.from_numpy(np.stack(filled)).view(len(filled), *levels.shape[1:]).permute(0, 3, 1, 2)
    made = found.to(given["masked"]) / 127.5 - 1
    return torch.where(given["mask"] > 0, made, given["masked"])


def masked(objective: ObjectiveConfig, data: DataConfig) -> Condition:
    """Build the condition of `objective.masked`."""
    settings, target = objective.masked, objective.target
    if data.fields[target].kind == "point":
        return MaskedPoints(target, data.shape(target)[0], settings.share)
    return Masked(target, data.shape(target)[0], settings.holes, settings.share, settings.field)
