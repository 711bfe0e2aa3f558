"""Cache of statistics of real images, and of classifiers trained on them, in storage, shared by all runs.

A file name is a hash of everything that its content depends on.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ganrun.evaluation.feature_statistics import NOTHING, FeatureStatistics, Keep
from ganrun.evaluation.moments import FeatureMoments
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage

logger = logging.getLogger(__name__)


def reference(
    storage: Storage,
    origin: Mapping[str, str | int | float | None],
    make: Callable[[], FeatureStatistics],
    extractor: Extractor,
    group: dist.ProcessGroup | None = None,
    keep: Keep = NOTHING,
) -> FeatureStatistics:
    """Return statistics of real images from the cache, or compute and store them. Collective over `group`.

    Only rank 0 reads and writes. If the storage fails, or the file is corrupt, that is logged and the statistics are
    computed again.

    Args:
        storage: storage of the cache.
        origin: key of the real images, see `RealImages.origin`.
        make: computes the statistics; called on all ranks on a cache miss.
        extractor: the extractor that `make` uses.
        group: participating ranks.
        keep: values that `make` keeps for each image.
    """
    first = group is None or group.rank() == 0
    name = reference_name(origin, extractor, keep)
    found = _read(storage, name, extractor.size, keep) if first else None
    statistics = FeatureMoments(extractor.size, extractor.device)
    if found is not None:
        statistics.merge(found.statistics)
    if group is not None:
        dist.broadcast(statistics.moments, group=group, group_src=0)
    if statistics.count:
        return FeatureStatistics(statistics, found.features if found else None)
    made = make()
    if first:
        _write(storage, name, made)
    return made


def reference_name(origin: Mapping[str, str | int | float | None], extractor: Extractor, keep: Keep = NOTHING) -> str:
    """Return the file name, `.statistics/HASH.safetensors`, with a hash of all that the content depends on."""
    kept = {"keeps": "features"} if keep.features else {}
    made_of = json.dumps({**origin, **kept, **extractor.provenance}, sort_keys=True)
    return f".statistics/{hashlib.sha256(made_of.encode()).hexdigest()}.safetensors"


def read_kept(storage: Storage, name: str) -> dict[str, Tensor] | None:
    """Return tensors that `write_kept` stored; None if there are none, or with a warning if they cannot be read."""
    try:
        return from_bytes(storage.read(name))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s/%s is computed again: %s", storage.uri, name, error)
        return None


def write_kept(storage: Storage, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Store tensors for all runs. A failed write is only a warning."""
    try:
        storage.write(name, to_bytes(tensors))
    except OSError as error:
        logger.warning("%s/%s is not cached: %s", storage.uri, name, error)


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise CPU tensors as safetensors, with an additional tensor `sha256` over all of them."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data: bytes = save({**tensors, "sha256": _digest(tensors)})
    return data


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Read tensors that `to_bytes` serialised, on the CPU.

    Raises:
        ValueError: the bytes are corrupt, or not such a file.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
        digest = tensors.pop("sha256")
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"not a file of cached tensors: {error}") from error
    if not torch.equal(digest, _digest(tensors)):
        raise ValueError("cached tensors do not match their SHA-256")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return SHA-256 over the bytes of CPU tensors in the order of their names, uint8 [32]."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _read(storage: Storage, name: str, size: int, keep: Keep) -> FeatureStatistics | None:
    tensors = read_kept(storage, name)
    if tensors is None:
        return None
    moments, features = tensors.get("moments"), tensors.get("features")
    if moments is None or len(moments) != size + 1 or (keep.features and features is None):
        logger.warning("%s/%s is computed again: it has other than %d features, or lacks them", storage.uri, name, size)
        return None
    statistics = FeatureMoments(size)
    statistics.moments.copy_(moments)
    return FeatureStatistics(statistics, features)


def _write(storage: Storage, name: str, seen: FeatureStatistics) -> None:
    tensors = {"moments": seen.statistics.moments.cpu()}
    if seen.features is not None:
        tensors["features"] = seen.features
    write_kept(storage, name, tensors)
