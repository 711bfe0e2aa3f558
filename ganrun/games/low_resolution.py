"""Condition `low_resolution`: the image itself at a half, quarter or eighth of its size. G is to return the image.

Ledig et al. 2017 (arXiv:1609.04802): the low-resolution picture is made by antialiased bicubic interpolation, here that
of Pillow, so that pictures that a user has made smaller are of the same kind.

Shapes: B batch, C channels, S image size in pixels, F factor.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ganrun.config.schema import DataConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.conditions import Batch, Condition, UserInput, as_channels
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

Degradation = Callable[[Tensor, KeyedNoise], Tensor]
"""([B, C, H, W] in [-1, 1], noise) -> the same shape."""


def bicubic(images: Tensor, size: int) -> Tensor:
    """Return images [B, C, H, W] in [-1, 1] at another size [B, C, size, size], antialiased, as Pillow's bicubic."""
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
    return resized.clamp(-1, 1)


class LowResolution(Condition):
    """Pictures at a fraction of the size, `low_resolution` [B, C, S / F, S / F], and `upscaled` [B, C, S, S].

    The second is the first by bicubic interpolation: the baseline, and what networks that expect a picture of the
    image's size are given. Both have 256 levels, as a file has.

    Args:
        field: the image field, which is also the generated one.
        channels: C.
        factor: F.
        degradations: names in DEGRADATIONS, in their order there.
    """

    data_baselines = ()

    def __init__(self, field: str, channels: int, factor: int, degradations: tuple[str, ...] = ()) -> None:
        self.fields, self.pictures, self.factor = (field,), {"upscaled": channels}, factor
        self.baselines = {"bicubic": lambda given: given["upscaled"]}
        self.before = [DEGRADATIONS[name] for name in degradations if name == "blur"]
        self.after = [each for name, each in DEGRADATIONS.items() if name in degradations and name != "blur"]

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the pictures of the images of a batch."""
        images = batch[self.fields[0]]
        for degrade in self.before:
            images = degrade(images, noise)
        small = bicubic(images, images.shape[-1] // self.factor)
        for degrade in self.after:
            small = degrade(small, noise)
        return self._given(small)

    def from_user(self, item: UserInput) -> Given:
        """Return the user's picture, which is the low-resolution one, in as many channels as those of the data."""
        if item.picture is None:
            raise UserError(f"{item.name}: this run enlarges pictures; give a picture")
        return self._given(as_channels(item.picture[None], self.pictures["upscaled"]))

    def exported(self, given: Given) -> Given:
        """Return the low-resolution pictures alone."""
        return {"low_resolution": given["low_resolution"]}

    def completed(self, exported: Given) -> Given:
        """Return low-resolution pictures with the enlarged ones."""
        return self._given(exported["low_resolution"])

    def show(self, given: Given) -> Tensor:
        """Return the pictures with each pixel as a square."""
        squares: Tensor = F.interpolate(given["low_resolution"], scale_factor=self.factor, mode="nearest")
        return squares

    def _given(self, small: Tensor) -> Given:
        small = ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        height, width = (side * self.factor for side in small.shape[2:])
        large = F.interpolate(small, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
        return {"low_resolution": small, "upscaled": large}


# Degradations of photographs, drawn for each image; the ranges are those of Wang et al. 2021 (arXiv:2107.10833).


def blur(images: Tensor, noise: KeyedNoise) -> Tensor:
    """Blur images [B, C, S, S] by a Gaussian of deviation 0.2 to 3 pixels, before they are made smaller."""
    deviation = 0.2 + 2.8 * noise.uniform(len(images), 1, name="blur")
    at = torch.arange(-10, 11, device=images.device, dtype=images.dtype)
    row = (-(at**2) / (2 * deviation**2)).exp()
    row = (row / row.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)[:, None, None]  # [B C, 1, 1, 21]
    padded = F.pad(images, (10, 10, 10, 10), mode="replicate").reshape(1, -1, *(side + 20 for side in images.shape[2:]))
    across = F.conv2d(padded, row, groups=len(row))
    return F.conv2d(across, row.transpose(2, 3), groups=len(row)).reshape(images.shape)


def grain(images: Tensor, noise: KeyedNoise) -> Tensor:
    """Add Gaussian noise of deviation 1 to 30 of 255 levels to images [B, C, H, W]."""
    deviation = (1 + 29 * noise.uniform(len(images), 1, 1, 1, name="grain/deviation")) / 127.5
    return images + deviation * noise.normal(*images.shape, name="grain")


def jpeg(images: Tensor, noise: KeyedNoise) -> Tensor:
    """Quantise images [B, C, H, W] as JPEG of quality 30 to 95 does: 8x8 cosines of luma and chroma, not subsampled."""
    quality = 30 + 65 * noise.uniform(len(images), 1, 1, 1, 1, 1, name="jpeg")
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate") * 127.5 - 0.5  # Levels - 128, as JPEG's.
    to_luma, from_luma, tables, cosines = _jpeg_constants(padded.shape[1], images.dtype, images.device)
    planes = torch.einsum("ij,bjhw->bihw", to_luma, padded)
    steps = (tables * scale).round().clamp(min=1)  # [B, C, 1, 1, 8, 8]
    rows, columns = (side // 8 for side in planes.shape[2:])
    blocks = planes.reshape(*planes.shape[:2], rows, 8, columns, 8).transpose(3, 4)  # [B, C, rows, columns, 8, 8]
    quantised = (cosines @ blocks @ cosines.T / steps).round() * steps
    planes = (cosines.T @ quantised @ cosines).transpose(3, 4).flatten(4).flatten(2, 3)
    restored = torch.einsum("ij,bjhw->bihw", from_luma, planes)[..., :height, :width]
    return (restored + 0.5) / 127.5


DEGRADATIONS: dict[str, Degradation] = {"blur": blur, "noise": grain, "jpeg": jpeg}
"""By their name in `objective.low_resolution.degradations`."""

LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Y, Cb and Cr of R, G and B (JFIF)."""
LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the 8x8 frequencies of luma at quality 50 (ITU-T T.81, table K.1)."""
CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)
"""Of chroma (table K.2)."""


@functools.cache
def _jpeg_constants(channels: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return luma and chroma of colours, and back, [C, C]; steps of quality 50, [C, 1, 1, 8, 8]; cosines, [8, 8].

    They are made once: a captured round cannot copy numbers from the host.
    """
    to_luma = torch.tensor(LUMA, dtype=torch.float64) if channels == 3 else torch.eye(1, dtype=torch.float64)
    tables = torch.tensor([LUMA_TABLE, CHROMA_TABLE, CHROMA_TABLE][:channels]).view(-1, 1, 1, 8, 8)
    made = [each.to(device, dtype) for each in (to_luma, torch.linalg.inv(to_luma), tables, _cosines())]
    return made[0], made[1], made[2], made[3]


def _cosines() -> Tensor:
    """Return the orthonormal cosine transform of 8 numbers, float64 [8, 8]."""
    at = torch.arange(8, dtype=torch.float64)
    rows = (math.pi * (at + 0.5) * at[:, None] / 8).cos() / 2
    rows[0] /= math.sqrt(2)
    return rows


def low_resolution(objective: ObjectiveConfig, data: DataConfig) -> Condition:
    """Build the condition of `objective.low_resolution`."""
    settings = objective.low_resolution
    channels = data.shape(objective.target)[0]
    return LowResolution(objective.target, channels, settings.factor, settings.degradations)
