"""Images as one picture."""

import torch
from torch import Tensor
from torchvision.io import encode_png
from torchvision.utils import make_grid


def to_png(images: Tensor, columns: int | None = None) -> bytes:
    """Images [B, C, H, W] in [-1, 1] as one PNG, in rows of `columns`, or of about the square root of B."""
    if columns is None or columns > len(images):
        columns = max(1, round(len(images) ** 0.5))
    grid = make_grid(images.float().cpu(), nrow=columns, padding=2, normalize=True, value_range=(-1, 1))
    return bytes(encode_png((grid * 255).round().to(torch.uint8)).numpy())
