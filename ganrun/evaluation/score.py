"""Scores of a generator over all ranks: the same number for every number of ranks.

Sample numbers are cut into chunks of fixed size, and chunk c goes to rank c modulo the number of ranks: which
samples are made, and in which batches, does not depend on how many ranks there are.

`group` is the process group of the ranks that call together (`torch.distributed.group.WORLD`), or None for
one process alone.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ganrun.evaluation.frechet import frechet_distance
from ganrun.evaluation.statistics import Statistics
from ganrun.features import Extractor
from ganrun.storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """A number and where it came from; scores that differ in anything but `value` are not comparable.

    Attributes:
        samples: generated images it was measured on.
        seed: that these were drawn with.
    """

    name: str
    value: float
    extractor: str
    extractor_sha256: str
    resize: str
    samples: int
    seed: int

    def to_json(self) -> dict[str, str | int | float | None]:
        """The fields; a value that is not finite, which JSON cannot say, is None."""
        return asdict(self) | {"value": self.value if math.isfinite(self.value) else None}


def frechet_score(real: Statistics, fake: Statistics, extractor: Extractor, seed: int) -> Score:
    """The Fréchet distance of `fake` from `real`, both of this extractor's features."""
    name = score_name(extractor.name, fake.count)
    try:
        value = frechet_distance(real, fake)
    except LinAlgError as error:
        # The same on all ranks, which have the same statistics. A score that fails must not end a run.
        logger.warning("%s could not be computed: %s", name, error)
        value = math.nan
    return Score(name, value, **extractor.provenance, samples=fake.count, seed=seed)


def score_name(extractor: str, samples: int) -> str:
    """What a Fréchet distance may be called: FID is one extractor's, with 50,000 samples."""
    if extractor != "inception-v3-compat":
        return f"Fréchet distance ({extractor}, n={samples})"
    return "FID" if samples == 50_000 else f"FID-{samples}"


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to the pixels that a file would hold: uint8 in 0..255, NaN as 0."""
    return images.float().mul(127.5).add(127.5).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)


def fake_statistics(
    sample: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
) -> Statistics:
    """Statistics of generated images, quantised to uint8 before anything else; all ranks must call.

    Args:
        sample: (start, count) to the images numbered start to start + count - 1, [count, C, H, W] in [-1, 1].
            They must not depend on the rank that asks.
        samples: images over all ranks.
        batch: images in a chunk, the last of which may be short.

    Returns:
        The statistics over all ranks, on each. An image with a NaN or an infinity makes them NaN.

    Raises:
        ValueError: `sample` gave another number of images than it was asked for.
    """

    def features(start: int, count: int) -> Tensor:
        images = sample(start, count)
        broken = ~images.isfinite().flatten(1).all(1, keepdim=True)
        # uint8 has no NaN: without this a diverged generator would be scored as one of black images
        return extractor(to_uint8(images)).masked_fill(broken.to(extractor.device), math.nan)

    return _statistics(features, samples, batch, extractor, group)


def real_statistics(
    read: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
) -> Statistics:
    """As `fake_statistics`, of data: `read` gives uint8 images [count, C, H, W]."""
    return _statistics(lambda start, count: extractor(read(start, count)), samples, batch, extractor, group)


@torch.no_grad()
def _statistics(
    features: Callable[[int, int], Tensor],
    samples: int,
    batch: int,
    extractor: Extractor,
    group: dist.ProcessGroup | None,
) -> Statistics:
    statistics = Statistics(extractor.size, extractor.device)
    rank, world = (0, 1) if group is None else (group.rank(), group.size())
    for start in range(rank * batch, samples, world * batch):
        statistics.update(features(start, min(batch, samples - start)))
    if group is not None:
        statistics.all_reduce(group)
    if statistics.count != samples:  # known to every rank alike: all raise, none waits
        raise ValueError(f"asked for {samples} images, got {statistics.count}")
    return statistics


def reference(
    storage: Storage,
    origin: Mapping[str, str | int],
    make: Callable[[], Statistics],
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
) -> Statistics:
    """Statistics of real data out of `storage`, or made and kept there; all ranks must call.

    Rank 0 alone reads and writes. A fault of the storage costs time, not the score: it is logged, and the
    statistics are made anew.

    Args:
        origin: what the statistics depend on beside the extractor: the data's hash, the number of samples.
        make: called by all ranks if there are none; gives the same on each.

    Returns:
        The statistics, on each rank.
    """
    first = group is None or group.rank() == 0
    name = reference_name(origin, extractor)
    statistics = Statistics(extractor.size, extractor.device)
    if first and (cached := _read(storage, name, extractor.size)) is not None:
        statistics.merge(cached)
    if group is not None:
        dist.broadcast(statistics.moments, group=group, group_src=0)
    if statistics.count == 0:
        statistics = make()
        if first:
            _write(storage, name, statistics)
    return statistics


def reference_name(origin: Mapping[str, str | int], extractor: Extractor) -> str:
    """`.statistics/{hash}.safetensors`, the hash being of all that the statistics depend on."""
    made_of = json.dumps({**origin, **extractor.provenance}, sort_keys=True)
    return f".statistics/{hashlib.sha256(made_of.encode()).hexdigest()}.safetensors"


def _read(storage: Storage, name: str, size: int) -> Statistics | None:
    try:
        statistics = Statistics.from_bytes(storage.read(name))
        if len(statistics.moments) != size + 1:
            raise ValueError(f"statistics of {len(statistics.moments) - 1} features, not of {size}")
        return statistics
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s/%s is made anew: %s", storage.uri, name, error)
        return None


def _write(storage: Storage, name: str, statistics: Statistics) -> None:
    try:
        storage.write(name, statistics.to_bytes())
    except OSError as error:
        logger.warning("%s/%s is not kept: %s", storage.uri, name, error)
