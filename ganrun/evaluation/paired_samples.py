"""Samples of the data by number: what conditions are made of, and the real images that belong to them."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ganrun.config.schema import DataConfig, EvaluateConfig, FieldConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.data.cache import ShardCache, open_cache
from ganrun.data.corrupt_samples import CorruptSamplePolicy
from ganrun.data.decode import Decoder, Located, RawBatch, normalised
from ganrun.data.index import DataSet
from ganrun.data.samples import Samples
from ganrun.data.scored import open_scored
from ganrun.games.conditions import Batch, Condition
from ganrun.storage import PATIENCE_SECONDS

TRAINING_SAMPLES = 10_000
"""Most training samples that baselines look at, evenly spaced."""


class PairedSamples:
    """Reads samples by number, the same on any number of ranks: evenly spaced in the order of the index.

    Image i of a generator belongs to sample i modulo their number, as image i of `RealImages` of as many samples.

    Args:
        data: the held-out samples, or all samples if none are held out.
        samples: their number, `evaluate.samples`; all samples if there are fewer.
        fields: the fields to read, such as those of the condition and the generated one.
        target: the generated field.
        damaged_share: `data.damaged_share`, the share of corrupt samples that may be skipped.
        cache: cache of shards from object storage, as in training; None: no cache.
        training: samples that are trained on, evenly spaced; None if these are among them.
        origin: all that conditions and images depend on, as JSON; None if a user's code makes them.
    """

    def __init__(
        self,
        data: DataSet,
        samples: int,
        fields: Mapping[str, FieldConfig],
        target: str,
        damaged_share: float = 0.0,
        cache: ShardCache | None = None,
        training: "PairedSamples | None" = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        self.samples, self.target = min(samples, data.samples), target
        self.training, self.origin, self.of_points = training, origin, fields[target].kind == "point"
        self._decoders = {name: Decoder(name, field, data.index) for name, field in fields.items()}
        self._corrupt = CorruptSamplePolicy(damaged_share, data.samples)
        self._samples = Samples(data, cache)
        self._read = functools.lru_cache(maxsize=2)(self._read_batch)  # A score asks for conditions, and for truths.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def batch(self, start: int, count: int, device: torch.device, dtype: torch.dtype) -> Batch:
        """Return samples start to start + count - 1 on a device: images in [-1, 1], numbers in `dtype`.

        Raises:
            UserError: more samples are corrupt than `damaged_share` allows.
        """
        return self.at(range(start, start + count), device, dtype)

    def at(self, numbers: Iterable[int], device: torch.device, dtype: torch.dtype) -> Batch:
        """Return the samples of these numbers, as `batch`."""
        placed = {
            name: field.to(device) if isinstance(field, Tensor) else field
            for name, field in self._read(tuple(numbers)).items()
        }
        return normalised(placed, dtype)

    def raw(self, numbers: Iterable[int]) -> RawBatch:
        """Return the samples of these numbers as they were decoded, on the CPU.

        Raises:
            UserError: see `batch`.
        """
        return self._read_batch(tuple(numbers))

    def _read_batch(self, numbers: tuple[int, ...]) -> RawBatch:
        located = [self._samples[number % self.samples * len(self._samples) // self.samples] for number in numbers]
        return self._corrupt.batch(located, self._decode)

    def _decode(self, samples: Sequence[Located]) -> RawBatch:
        return {name: decoder.batch(samples, self._threads, 1) for name, decoder in self._decoders.items()}


def open_pairs(
    condition: Condition,
    data: DataSet,
    objective: ObjectiveConfig,
    settings: DataConfig,
    evaluate: EvaluateConfig,
    patience_seconds: float = PATIENCE_SECONDS,
) -> PairedSamples | None:
    """Open the samples that the conditions of a run are made of: those that its scores compare with.

    Args:
        condition: condition of the run.
        data: all samples of `data.shards`.
        objective, settings, evaluate: sections of the config.
        patience_seconds: retry budget of a storage that does not answer.

    Returns:
        None for labels and unconditional games, whose conditions are numbers.
    """
    if condition.by_number(0, 1, torch.device("cpu")) is not None:
        return None
    target = objective.target
    shown = (condition.caption_field,) if condition.caption_field else ()
    names = dict.fromkeys((*condition.fields, *condition.later, *shown, target))
    fields = {name: settings.fields[name] for name in names}
    scored, cache = open_scored(data, evaluate, 0, patience_seconds), open_cache(settings.cache_mib)

    def opened(part: DataSet, samples: int, **more: Any) -> PairedSamples:
        return PairedSamples(part, samples, fields, target, settings.damaged_share, cache, **more)

    if not scored.held_out_by:
        return opened(scored, evaluate.samples)
    training = opened(data.trained_on(evaluate.held_out_share), TRAINING_SAMPLES)
    return opened(
        scored, evaluate.samples, training=training, origin=_origin(condition, data, scored, objective, settings)
    )


def _origin(
    condition: Condition, data: DataSet, scored: DataSet, objective: ObjectiveConfig, settings: DataConfig
) -> dict[str, Any] | None:
    """Return all that conditions and images depend on; None for a condition of a user's own, whose code may change."""
    if not type(condition).__module__.startswith("ganrun."):
        return None
    return {
        "data": [data.index.fingerprint, scored.index.fingerprint, scored.held_out_by],
        "condition": objective.model_dump(mode="json", include={"target", "condition", str(objective.condition)}),
        "crop": settings.crop,
        "fields": {name: field.model_dump(mode="json") for name, field in settings.fields.items()},
    }
