"""Extracts features of many images on all ranks, with the same result for any number of ranks.

Samples are split into chunks of fixed size; chunk c goes to rank c mod W. The samples, and the batches they are made
in, do not depend on the number of ranks W.

`group` is the process group of the participating ranks, or None for a single process.

Shapes: N samples, D features, K logits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ganrun.evaluation.moments import FeatureMoments
from ganrun.evaluation.ranks import place_in
from ganrun.models.extractors import Extractor

Extract = Callable[[int, int], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Keep:
    """Values to keep for each image beside the moments over all. They are gathered on rank 0, which costs memory."""

    features: bool = False
    logits: bool = False


NOTHING = Keep()


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of the features of N images.

    Attributes:
        statistics: moments of the features, on each rank.
        features: float32 [N, D] on the CPU, in sample order; None if not kept or not on rank 0.
        logits: float32 [N, K] on the CPU, in sample order; None if not kept or not on rank 0.
    """

    statistics: FeatureMoments
    features: Tensor | None = None
    logits: Tensor | None = None


def to_uint8(images: Tensor) -> Tensor:
    """Quantise images in [-1, 1] to uint8 in 0..255, as a PNG would store them. NaN becomes 0."""
    return images.float().mul(127.5).add(127.5).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)


def extract_generated(
    sample: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
    keep: Keep = NOTHING,
) -> FeatureStatistics:
    """Extract features of generated images, quantised to uint8 first. Collective over `group`.

    Args:
        sample: (start, count) -> images start to start + count - 1, [count, C, H, W] in [-1, 1]. They must not depend
            on the calling rank.
        samples: N, images over all ranks.
        batch: images in a chunk; the last chunk may be shorter.
        extractor: feature extractor.
        group: participating ranks.
        keep: values to keep for each image.

    Returns:
        The statistics. An image with NaN or infinity has NaN features, so the moments become NaN too.

    Raises:
        ValueError: `sample` returned another number of images than it was asked for.
    """

    def extract(start: int, count: int) -> tuple[Tensor, Tensor | None]:
        images = sample(start, count)
        broken = ~images.isfinite().flatten(1).all(1, keepdim=True).to(extractor.device)
        features, logits = extractor.extract(to_uint8(images))
        # uint8 has no NaN: a diverged generator would be scored as if it made black images.
        features = features.masked_fill(broken, math.nan)
        return features, None if logits is None else logits.masked_fill(broken, math.nan)

    return _observe(extract, samples, batch, extractor, group, keep)


def extract_real(
    read: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
    keep: Keep = NOTHING,
) -> FeatureStatistics:
    """Extract features of real images, see `extract_generated`. `read` returns uint8 images [count, C, H, W]."""
    return _observe(lambda start, count: extractor.extract(read(start, count)), samples, batch, extractor, group, keep)


@torch.no_grad()
def _observe(
    extract: Extract, samples: int, batch: int, extractor: Extractor, group: dist.ProcessGroup | None, keep: Keep
) -> FeatureStatistics:
    statistics = FeatureMoments(extractor.size, extractor.device)
    rank, world = place_in(group)
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(rank * batch, samples, world * batch):
        features, logits = extract(start, min(batch, samples - start))
        statistics.update(features)
        if keep.features:
            kept[0].append(features.cpu())
        if keep.logits and logits is not None:
            kept[1].append(logits.cpu())
    if group is not None:
        statistics.all_reduce(group)
    if statistics.count != samples:  # the same on every rank: all raise, none hangs
        raise ValueError(f"asked for {samples} images, got {statistics.count}")
    return FeatureStatistics(
        statistics,
        _gather(kept[0], extractor.size, samples, batch, group) if keep.features else None,
        _gather(kept[1], extractor.classes, samples, batch, group) if keep.logits and extractor.classes else None,
    )


def _gather(
    chunks: list[Tensor], size: int, samples: int, batch: int, group: dist.ProcessGroup | None
) -> Tensor | None:
    """Gather the chunks of all ranks to [samples, size] in sample order on rank 0; None on other ranks."""
    if group is None:
        return torch.cat(chunks)
    rank, world = group.rank(), group.size()
    each = -(-samples // (batch * world))
    own = F.pad(torch.cat([torch.zeros(0, size), *chunks]), (0, 0, 0, each * batch - sum(map(len, chunks))))
    parts = [torch.empty_like(own) for _ in range(world)] if rank == 0 else None
    dist.gather(own, parts, group=group, group_dst=0)
    if parts is None:
        return None
    # [rank, chunk, row] -> [chunk, rank, row]: only the last chunk is short, so all padding is at the end.
    return torch.stack([part.view(each, batch, size) for part in parts], dim=1).view(-1, size)[:samples].clone()
