"""What an extractor sees in many images, over all ranks: the same for every number of ranks.

Sample numbers are cut into chunks of fixed size, and chunk c goes to rank c modulo the number of ranks: which
samples are made, and in which batches, does not depend on how many ranks there are.

`group` is the process group of the ranks that call together (`torch.distributed.group.WORLD`), or None for
one process alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ganrun.evaluation.moments import FeatureMoments
from ganrun.models.extractors import Extractor

Extract = Callable[[int, int], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Keep:
    """What is kept of each image, beside the statistics of all: it is gathered, which costs memory."""

    features: bool = False
    logits: bool = False


NOTHING = Keep()


@dataclass(frozen=True)
class FeatureStatistics:
    """What was seen; `statistics` on each rank, the rest on rank 0 alone and in the order of the samples.

    Attributes:
        features: float32 [N, D] on the CPU; None if not kept.
        logits: float32 [N, K] on the CPU; None if not kept.
    """

    statistics: FeatureMoments
    features: Tensor | None = None
    logits: Tensor | None = None


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to the pixels that a file would hold: uint8 in 0..255, NaN as 0."""
    return images.float().mul(127.5).add(127.5).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)


def extract_generated(
    sample: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
    keep: Keep = NOTHING,
) -> FeatureStatistics:
    """Generated images, quantised to uint8 before anything else; all ranks must call.

    Args:
        sample: (start, count) to the images numbered start to start + count - 1, [count, C, H, W] in [-1, 1].
            They must not depend on the rank that asks.
        samples: images over all ranks.
        batch: images in a chunk, the last of which may be short.

    Returns:
        An image with a NaN or an infinity makes its features, and so the statistics, NaN.

    Raises:
        ValueError: `sample` gave another number of images than it was asked for.
    """

    def extract(start: int, count: int) -> tuple[Tensor, Tensor | None]:
        images = sample(start, count)
        broken = ~images.isfinite().flatten(1).all(1, keepdim=True).to(extractor.device)
        features, logits = extractor.extract(to_uint8(images))
        # uint8 has no NaN: without this a diverged generator would be scored as one of black images
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
    """As `extract_generated`, of data: `read` gives uint8 images [count, C, H, W]."""
    return _observe(lambda start, count: extractor.extract(read(start, count)), samples, batch, extractor, group, keep)


@torch.no_grad()
def _observe(
    extract: Extract, samples: int, batch: int, extractor: Extractor, group: dist.ProcessGroup | None, keep: Keep
) -> FeatureStatistics:
    statistics = FeatureMoments(extractor.size, extractor.device)
    rank, world = (0, 1) if group is None else (group.rank(), group.size())
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
    if statistics.count != samples:  # known to every rank alike: all raise, none waits
        raise ValueError(f"asked for {samples} images, got {statistics.count}")
    return FeatureStatistics(
        statistics,
        _gather(kept[0], extractor.size, samples, batch, group) if keep.features else None,
        _gather(kept[1], extractor.classes, samples, batch, group) if keep.logits and extractor.classes else None,
    )


def _gather(
    chunks: list[Tensor], size: int, samples: int, batch: int, group: dist.ProcessGroup | None
) -> Tensor | None:
    """The rows of all ranks' chunks in the order of the samples, [samples, size], on rank 0."""
    if group is None:
        return torch.cat(chunks)
    rank, world = group.rank(), group.size()
    each = -(-samples // (batch * world))
    own = F.pad(torch.cat([torch.zeros(0, size), *chunks]), (0, 0, 0, each * batch - sum(map(len, chunks))))
    parts = [torch.empty_like(own) for _ in range(world)] if rank == 0 else None
    dist.gather(own, parts, group=group, group_dst=0)
    if parts is None:
        return None
    # [rank, chunk, row] -> [chunk, rank, row]: only the last chunk of all is short, and its padding comes last.
    return torch.stack([part.view(each, batch, size) for part in parts], dim=1).view(-1, size)[:samples].clone()
