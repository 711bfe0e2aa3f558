"""What was seen of real images or learnt of them, kept in storage for all runs under a hash of what made it."""

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
    """What was seen of real data, out of `storage`, or made and kept there; all ranks must call.

    Rank 0 alone reads and writes. A fault of the storage costs time, not the score: it is logged, and all is made
    anew.

    Args:
        origin: what it depends on beside the extractor: the data's hash, the number of samples.
        make: called by all ranks if there is none.
        keep: as `make` keeps it.
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
    """`.statistics/{hash}.safetensors`, the hash being of all that the content depends on."""
    kept = {"keeps": "features"} if keep.features else {}
    made_of = json.dumps({**origin, **kept, **extractor.provenance}, sort_keys=True)
    return f".statistics/{hashlib.sha256(made_of.encode()).hexdigest()}.safetensors"


def read_kept(storage: Storage, name: str) -> dict[str, Tensor] | None:
    """Tensors that `write_kept` wrote; None, and a warning, if they are damaged or cannot be read."""
    try:
        return from_bytes(storage.read(name))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s/%s is made anew: %s", storage.uri, name, error)
        return None


def write_kept(storage: Storage, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Keeps tensors for all runs; if the storage does not take them, that is only a warning."""
    try:
        storage.write(name, to_bytes(tensors))
    except OSError as error:
        logger.warning("%s/%s is not kept: %s", storage.uri, name, error)


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file with the tensors, which are on the CPU, and the SHA-256 of all."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data: bytes = save({**tensors, "sha256": _digest(tensors)})
    return data


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """What `to_bytes` wrote, on the CPU.

    Raises:
        ValueError: the bytes are damaged or something else.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
        digest = tensors.pop("sha256")
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no kept tensors: {error}") from error
    if not torch.equal(digest, _digest(tensors)):
        raise ValueError("kept tensors do not match their SHA-256")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """SHA-256 of CPU tensors' bytes, by name, as uint8 [32]."""
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
        logger.warning("%s/%s is made anew: it is not of %d features, or does not keep them", storage.uri, name, size)
        return None
    statistics = FeatureMoments(size)
    statistics.moments.copy_(moments)
    return FeatureStatistics(statistics, features)


def _write(storage: Storage, name: str, seen: FeatureStatistics) -> None:
    tensors = {"moments": seen.statistics.moments.cpu()}
    if seen.features is not None:
        tensors["features"] = seen.features
    write_kept(storage, name, tensors)
