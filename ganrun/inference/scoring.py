"""Scores the EMA generator of a checkpoint against data."""

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


@dataclass(frozen=True)
class ScoreRequest:
    """Options of a score. None stands for the setting of the run.

    Attributes:
        metrics: metrics beside the Fréchet distance; None: all that can be computed.
        samples: number of generated images.
        seed: seed of their noise.
        extractor: name, or path or URI of a TorchScript program.
        extractor_weights: path or URI of weights of `inception-v3-compat`.
        data: URI of the real images.
        classifier_accuracy: compute the classification accuracy score too.
    """

    metrics: tuple[Metric, ...] | None = None
    samples: int | None = None
    seed: int | None = None
    extractor: str | None = None
    extractor_weights: str | None = None
    data: str | None = None
    classifier_accuracy: bool = False


def score_checkpoint(where: str, request: ScoreRequest, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """Score a checkpoint and return the result as JSON: values by metric, provenance, and `images` of the checkpoint.

    Args:
        where: folder of a run (its newest checkpoint) or of a checkpoint.
        request: options.
        seen: progress callback, called with the number of images just processed and the maximum of the total.

    Raises:
        UserError, RunError: see `score`.
    """
    storage, directory = find_checkpoint(where)
    found = score(f"{storage.uri}/{directory}", request, seen)
    images = json.loads(storage.read(f"{directory}/manifest.json", RECORD_BYTES))["images"]
    values: dict[str, Any] = {"images": images, "samples": found.samples, "seed": found.seed, "name": found.name}
    values |= found.provenance | found.values()
    if found.name == "FID":
        values["fid"] = values["frechet_distance"]
    return values


def score(where: str, request: ScoreRequest, seen: Callable[[int, int], None]) -> Score:
    """Score a checkpoint, see `score_checkpoint`. With no options set the distance equals the one in training.

    Raises:
        UserError: no such checkpoint, data or extractor, or a metric cannot be computed for this run.
        RunError: the checkpoint is corrupt.
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
        raise UserError("--classifier-accuracy: needs a conditional run (model.classes) and data with classes")
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
    """Score a generator of points by mode coverage.

    Raises:
        UserError: an option is for images only, or the modes of the data are unknown.
    """
    for key in ("metrics", "extractor", "extractor_weights", "classifier_accuracy"):
        if getattr(request, key):
            option = key.replace("_", "-")
            raise UserError(f"--{option}: only for images; points are scored by mode coverage, so leave it out")
    shards = request.data or sampler.config.data.shards
    index = open_data(shards).index
    if not known_mixture(index):
        raise UserError(f"data.shards: the modes of {shards} are unknown; known are those of {', '.join(MIXTURES)}")
    return PointEvaluator(index, samples, lambda count: seen(count, samples)).score(generated)


def _extractor(settings: EvaluateConfig, request: ScoreRequest) -> Extractor:
    """Open the requested extractor, or the one of the run with its weights."""
    name = request.extractor or settings.extractor
    own = settings.extractor_weights if name == settings.extractor else None
    return open_extractor(name, request.extractor_weights or own)


def _reals(sampler: Sampler, request: ScoreRequest, samples: int) -> RealImages:
    config = sampler.config.data
    data = open_data(request.data or config.shards)
    if (data.index.image_size, data.index.channels) != (config.image_size, config.channels):
        raise UserError(
            f"--data {request.data}: images have {data.index.channels} channels and {data.index.image_size} pixels a "
            f"side, but those of the run {config.channels} and {config.image_size}; convert them with ganrun prepare "
            f"--size {config.image_size} --channels {config.channels}"
        )
    return RealImages(data, samples, config.fields, config.damaged_share, open_cache(config.cache_mib))


def _generated(sampler: Sampler, seed: int) -> GeneratedImages:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network in sampler.game.networks.values():
        network.to(device)
    return GeneratedImages(sampler.game, sampler.game.networks, seed)
