"""Renders images, or points, as one PNG."""

import io
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.utils import make_grid

from ganrun.data.index import Index
from ganrun.evaluation.modes import Floats, known_mixture, picture

SMALL_IMAGES, SMALL_PIXELS = 16, 128
"""Limits of `small_png`, in images and in pixels per side: the PNG is below 1 MiB even if it does not compress."""


def to_picture(
    images: Tensor,
    index: Index,
    columns: int | None,
    facts: Mapping[str, str],
    density: Callable[[Tensor], Tensor] | None = None,
) -> bytes | None:
    """Render samples of a generator as one PNG: images as a grid, points over the modes of their mixture.

    Args:
        images: images or points [B, C, H, W] in [-1, 1].
        index: index of the training data, which tells images from points.
        columns: images per row of the grid; None: about sqrt(B).
        facts: provenance, stored as text chunks of the PNG.
        density: density of the model at points [B, C, 1, 1], if it has one.

    Returns:
        PNG bytes; None for points whose modes are unknown.
    """
    if index.image_size > 1:
        return to_png(images, columns, facts)
    of = known_mixture(index)
    if of is None:
        return None

    def at(points: Floats) -> Floats:
        assert density is not None
        values: Floats = density(torch.from_numpy(points)[:, :, None, None]).double().cpu().numpy()
        return values

    return picture(images.double().cpu().numpy(), of, index.made["source"], facts, density and at)


def beside(
    condition: Tensor | None, images: Tensor, truth: Tensor | None, later: Sequence[tuple[Tensor, Tensor]] = ()
) -> tuple[Tensor, int]:
    """Return condition, image and truth of each sample side by side, and how many pictures that is for each.

    Args:
        condition: pictures of the conditions, [B, C', H', W'] in [-1, 1], C' = 1 or 3, or N in a row,
            [B, N, C', H', W']; None: they have no picture.
        images: generated images [B, C, H, W].
        truth: the real images that belong to the conditions, [B, C, H, W]; None without such.
        later: what follows the images and the real ones in a roll-out, [B, C, H, W] each.

    Returns:
        [B x pictures, C'', H, W], and the number of pictures of a sample.
    """
    if condition is None and truth is None:
        return images, 1
    shown = [] if condition is None else condition.unbind(1) if condition.dim() == 5 else [condition]
    shown = [each if each.shape[2:] == images.shape[2:] else interpolate(each, images.shape[2:]) for each in shown]
    pictures = [*shown, images, *(each for each, _ in later), *([] if truth is None else [truth])]
    pictures += [each for _, each in later]
    channels = max(picture.shape[1] for picture in pictures)
    alike = [picture.to(images.dtype).expand(-1, channels, -1, -1) for picture in pictures]
    return torch.stack(alike, dim=1).flatten(0, 1), len(pictures)


def columns_of(count: int, pictures: int) -> int:
    """Return the columns of a grid of `count` samples that are so many pictures each, about as wide as high."""
    return pictures * max(1, round(math.sqrt(count / pictures)))


def small_png(images: Tensor) -> bytes:
    """Render the first 16 images of [B, C, H, W] in [-1, 1], downscaled to at most 128 pixels a side."""
    images = images[:SMALL_IMAGES].float()
    height, width = images.shape[2:]
    return to_png(adaptive_avg_pool2d(images, (min(height, SMALL_PIXELS), min(width, SMALL_PIXELS))))


def to_png(images: Tensor, columns: int | None = None, facts: Mapping[str, str] | None = None) -> bytes:
    """Render images [B, C, H, W] in [-1, 1] as a grid, see `to_picture`."""
    if columns is None or columns > len(images):
        columns = max(1, round(len(images) ** 0.5))
    grid = make_grid(images.float().cpu(), nrow=columns, padding=2, normalize=True, value_range=(-1, 1))
    texts = PngInfo()
    for name, value in (facts or {}).items():
        texts.add_text(name, value)
    file = io.BytesIO()
    pixels = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "png", pnginfo=texts)
    return file.getvalue()
