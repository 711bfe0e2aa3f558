"""Scores of a checkpoint: builds its EMA generator and compares what it draws with data."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from ganrun.config.field_types import Metric
from ganrun.config.schema import EvaluateConfig
from ganrun.data.cache import open_cache
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.classifier_accuracy import classification_accuracy_score
from ganrun.evaluation.evaluator import Evaluator, unavailable
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.modes import MIXTURES, known_mixture
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Score
from ganrun.inference.sampling import Sampler
from ganrun.models.extractors import Extractor, open_extractor
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.storage import RECORD_BYTES, open_storage
from ganrun.telemetry.series import FRECHET_DISTANCE


@dataclass(frozen=True)
class ScoreRequest:
    """What to score a checkpoint with; None: as the run was scored in training.

    Attributes:
        metrics: beside the Fréchet distance; None: all that the extractor and the data allow.
        classifier_accuracy: whether a classifier is trained on what is generated.
    """

    metrics: tuple[Metric, ...] | None = None
    samples: int | None = None
    seed: int | None = None
    extractor: str | None = None
    extractor_weights: str | None = None
    data: str | None = None
    classifier_accuracy: bool = False


def score_checkpoint(where: str, request: ScoreRequest, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """The scores by metric, their provenance, and at how many `images` of training the checkpoint is; else as `score`.

    Args:
        where: the folder of a run or of a checkpoint.
        request: what and how.
        seen: is called with images that were looked at, and the number there will be at most.
    """
    storage, directory = find_checkpoint(where)
    found = score(f"{storage.uri}/{directory}", request, seen)
    images = json.loads(storage.read(f"{directory}/manifest.json", RECORD_BYTES))["images"]
    values: dict[str, Any] = {"images": images, "samples": found.samples, "seed": found.seed, "name": found.name}
    values |= found.provenance | found.values()
    if found.name == "FID":
        values["fid"] = values[FRECHET_DISTANCE.key]
    return values


def score(where: str, request: ScoreRequest, seen: Callable[[int, int], None]) -> Score:
    """With the run's own seed, number of samples and extractor, the distance is the one measured in training.

    Raises:
        UserError: there is no such checkpoint, data or extractor, or the run cannot be scored so.
        RunError: the checkpoint is damaged.
    """
    storage, directory = find_checkpoint(where)
    sampler = Sampler(where)
    settings, run = sampler.config.evaluate, sampler.config.run
    samples = request.samples or settings.samples
    generated = _generated(sampler, run.seed if request.seed is None else request.seed)
    if sampler.of_points:
        return _score_points(sampler, request, generated, samples, seen)
    extractor = _extractor(settings, request)
    reals = _reals(sampler, request, samples)
    if request.classifier_accuracy and not (generated.labels(samples) is not None and reals.classes):
        raise UserError("--classifier-accuracy: needs a run that generates by class, and data with classes")
    metrics = request.metrics
    if metrics is None:
        metrics = tuple(name for name in get_args(Metric) if name not in unavailable(extractor, reals, generated))
    folder = storage.uri if directory.startswith("checkpoints/") else storage.uri.rpartition("/")[0]
    cache = open_storage(folder.rpartition("/")[0])
    evaluator = Evaluator(extractor, reals, samples, metrics, cache, lambda count: seen(count, samples + reals.samples))
    found = evaluator.score(generated)
    if request.classifier_accuracy:
        accuracy = classification_accuracy_score(generated, reals, samples)
        found = replace(found, metrics=found.metrics | {"classifier_accuracy": accuracy})
    return found


def _score_points(
    sampler: Sampler, request: ScoreRequest, generated: GeneratedImages, samples: int, seen: Callable[[int, int], None]
) -> Score:
    """By the modes that they cover.

    Raises:
        UserError: something was asked for that images alone have, or the modes are not known.
    """
    for key in ("metrics", "extractor", "extractor_weights", "classifier_accuracy"):
        if getattr(request, key):
            raise UserError(f"--{key.replace('_', '-')}: is for images; points are scored by the modes that they cover")
    shards = request.data or sampler.config.data.shards
    index = open_data(shards).index
    if not known_mixture(index):
        raise UserError(f"no modes are known of the points of {shards}; ganrun knows {', '.join(MIXTURES)}")
    return PointEvaluator(index, samples, lambda count: seen(count, samples)).score(generated)


def _extractor(settings: EvaluateConfig, request: ScoreRequest) -> Extractor:
    """That which was wished for, or the run's own, with its weights."""
    name = request.extractor or settings.extractor
    own = settings.extractor_weights if name == settings.extractor else None
    return open_extractor(name, request.extractor_weights or own)


def _reals(sampler: Sampler, request: ScoreRequest, samples: int) -> RealImages:
    config = sampler.config.data
    data = open_data(request.data or config.shards)
    if (data.index.image_size, data.index.channels) != (config.image_size, config.channels):
        raise UserError(
            f"--data {request.data}: {data.index.channels} channels of {data.index.image_size} pixels a side, but the "
            f"run generates {config.channels} of {config.image_size}; make it again with ganrun.prepare --size"
        )
    return RealImages(data, samples, config.fields, config.damaged_share, open_cache(config.cache_mib))


def _generated(sampler: Sampler, seed: int) -> GeneratedImages:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network in sampler.game.networks.values():
        network.to(device)
    return GeneratedImages(sampler.game, sampler.game.networks, seed)
