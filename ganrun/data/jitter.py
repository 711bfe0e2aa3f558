"""Resize-and-crop jitter of pictures in training (`data.jitter`), alike for all pictures of a sample."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ganrun.data.decode import RawBatch
from ganrun.rng import KeyedNoise


def jittered(batch: RawBatch, jitter: float, noise: KeyedNoise) -> RawBatch:
    """Return a batch whose pictures are enlarged by 1 + `jitter`, with a random part of the old size cut out.

    Isola et al. 2017 (arXiv:1611.07004), section 6.2: 256 pixels are resized to 286, a jitter of 0.117. Resampling is
    bicubic, as in the authors' code; the position is uniform and not rounded to pixels.

    Args:
        batch: fields by name; pictures are those [B, C, H, W] of more than one pixel, in [-1, 1].
        jitter: share of its side by which a picture is enlarged, above 0.
        noise: noise of the slot in the turn that the batch is loaded for.
    """
    pictures = {name: x for name, x in batch.items() if isinstance(x, Tensor) and x.dim() == 4 and x.shape[-1] > 1}
    if not pictures:
        return batch
    count, part = len(next(iter(pictures.values()))), 1 / (1 + jitter)
    centre = (1 - part) * (2 * noise.uniform(2, count, name="jitter") - 1)  # Of the part, for sides from -1 to 1.
    scale = torch.full_like(centre[0], part)
    zero = torch.zeros_like(scale)
    rows = [torch.stack([scale, zero, centre[0]], dim=1), torch.stack([zero, scale, centre[1]], dim=1)]
    maps = torch.stack(rows, dim=1)  # From output to input coordinates, [B, 2, 3].
    return batch | {name: _cut(picture, maps) for name, picture in pictures.items()}


def _cut(pictures: Tensor, maps: Tensor) -> Tensor:
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    cut = F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return cut.clamp(-1, 1)  # Bicubic resampling overshoots.
