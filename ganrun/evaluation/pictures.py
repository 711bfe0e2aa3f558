"""Renders images, or points, as one PNG."""

import io
from collections.abc import Mapping

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.utils import make_grid

from ganrun.data.index import Index
from ganrun.evaluation.modes import known_mixture, picture

SMALL_IMAGES, SMALL_PIXELS = 16, 128
"""Limits of `small_png`, in images and in pixels per side: the PNG is below 1 MiB even if it does not compress."""


def to_picture(images: Tensor, index: Index, columns: int | None, facts: Mapping[str, str]) -> bytes | None:
    """Render samples of a generator as one PNG: images as a grid, points over the modes of their mixture.

    Args:
        images: images or points [B, C, H, W] in [-1, 1].
        index: index of the training data, which tells images from points.
        columns: images per row of the grid; None: about sqrt(B).
        facts: provenance, stored as text chunks of the PNG.

    Returns:
        PNG bytes; None for points whose modes are unknown.
    """
    if index.image_size > 1:
        return to_png(images, columns, facts)
    of = known_mixture(index)
    return of and picture(images.double().cpu().numpy(), of, index.made["source"], facts)


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
