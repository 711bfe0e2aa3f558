"""Images, or points, as one picture."""

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
"""A small picture is less than 1 MiB, however well it compresses."""


def to_picture(images: Tensor, index: Index, columns: int | None, facts: Mapping[str, str]) -> bytes | None:
    """What is generated after the data of this index, as one PNG: images as `to_png`, points over their modes.

    None of points whose modes are not known.
    """
    if index.image_size > 1:
        return to_png(images, columns, facts)
    of = known_mixture(index)
    return of and picture(images.double().cpu().numpy(), of, index.made["source"], facts)


def small_png(images: Tensor) -> bytes:
    """The first of the images [B, C, H, W] in [-1, 1], and small."""
    images = images[:SMALL_IMAGES].float()
    height, width = images.shape[2:]
    return to_png(adaptive_avg_pool2d(images, (min(height, SMALL_PIXELS), min(width, SMALL_PIXELS))))


def to_png(images: Tensor, columns: int | None = None, facts: Mapping[str, str] | None = None) -> bytes:
    """Images [B, C, H, W] in [-1, 1] as one PNG, in rows of `columns`, or of about the square root of B.

    `facts` are kept in the file as its text: where the picture comes from.
    """
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
