"""Scores the EMA generator of a checkpoint against data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from ganrun.config.imports import import_modules
from ganrun.config.registry import SCORES
from ganrun.config.schema import EvaluateConfig, FieldConfig
from ganrun.data.cache import cache_folder, open_cache
from ganrun.data.index import DataSet, open_data
from ganrun.data.scored import open_scored
from ganrun.errors import UserError
from ganrun.evaluation.baselines import baseline_names
from ganrun.evaluation.classifier_accuracy import classification_accuracy_score
from ganrun.evaluation.evaluation import Evaluation
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.generated_images import GeneratedImages, ScoredImages
from ganrun.evaluation.modes import MIXTURES, known_mixture
from ganrun.evaluation.nearest_pictures import nearest_png
from ganrun.evaluation.picture_folder import PictureFolder
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import ScoreSubject, build_scores
from ganrun.inference.sampling import Sampler, write_file
from ganrun.inference.saved import find_saved
from ganrun.models.extractors import Extractor, open_extractor
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.storage import Storage, expand_user, open_storage
from ganrun.telemetry.series import FRECHET_DISTANCE
from ganrun.training.checkpoint import read_manifest


@dataclass(frozen=True)
class ScoreRequest:
    """Options of a score. None stands for the setting of the run.

    Attributes:
        metrics: metrics beside the Fréchet distance; None: all that can be computed of the images, and the run's.
        samples: number of generated images.
        seed: seed of their noise.
        extractor: name, or path or URI of a TorchScript program.
        extractor_weights: path or URI of weights of `inception-v3-compat`.
        data: URI of the real images; None: those that the run's own scores compare with.
        matcher: path or URI of the dual encoder of the score matching.
        classifier_accuracy: compute the classification accuracy score too.
        nearest: file of a picture of the training images nearest to generated ones; None: none.
    """

    metrics: tuple[str, ...] | None = None
    samples: int | None = None
    seed: int | None = None
    extractor: str | None = None
    extractor_weights: str | None = None
    data: str | None = None
    matcher: str | None = None
    classifier_accuracy: bool = False
    nearest: str | None = None


def score_pictures(
    folder: str,
    paths: Sequence[Path],
    decode: Callable[[Path], Image],
    run: str | None,
    request: ScoreRequest,
    seen: Callable[[int, int], None],
) -> dict[str, Any]:
    """Score the pictures of a folder in place of generated images; provenance as in `score_checkpoint`.

    Args:
        folder, paths, decode: folder of pictures, see `PictureFolder`.
        run: run or checkpoint whose data, extractor and seed are the defaults; None: `request.data` is needed.
        request: what to score and how.
        seen: called with images that were looked at, and the most there will be.

    Raises:
        UserError: folder, data or extractor are missing or do not fit each other.
    """
    config = find_saved(run).config if run else None
    if config:
        import_modules(config.run.imports)
    _check_names(request)
    if not (shards := request.data or (config and config.data.shards)):
        raise UserError("--images: name the real images to compare with: --data URI, or a run")
    settings = config.evaluate if config else EvaluateConfig()
    crop = config.data.crop if config else None
    data = open_data(shards, key="--data" if request.data else "data.shards", crop=crop)
    seed = request.seed if request.seed is not None else config.run.seed if config else 0
    pictures = PictureFolder(folder, paths, decode, data.index.image_size, data.index.channels, seed)
    samples = min(request.samples or len(pictures.paths), len(pictures.paths))
    fields, target = (
        (config.data.fields, config.objective.target) if config else ({"image": FieldConfig(kind="image")}, "image")
    )
    scored = data if request.data else open_scored(data, settings, samples, key="--samples")
    share, mib = (config.data.damaged_share, config.data.cache_mib) if config else (0.0, 0)
    reals = RealImages(scored, samples, fields, share, open_cache(mib), target=target)
    found = _compare(pictures, reals, samples, settings, request, open_storage(str(cache_folder().parent)), seen)
    return {"images": None, **_described(found)}


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
    return {"images": read_manifest(storage, directory)["images"], **_described(found)}


def _described(found: Evaluation) -> dict[str, Any]:
    """Return a score's values by metric, and its provenance."""
    values: dict[str, Any] = {"samples": found.samples, "seed": found.seed, "name": found.name}
    values |= found.provenance | {f"{name}_is": text for name, text in found.about.items()} | found.values()
    if found.name == "FID":
        values["fid"] = values[FRECHET_DISTANCE.key]
    return values


def score(where: str, request: ScoreRequest, seen: Callable[[int, int], None]) -> Evaluation:
    """Score a checkpoint, see `score_checkpoint`. With no options set the distance equals the one in training.

    Raises:
        UserError: no such checkpoint, data or extractor, or a metric cannot be computed for this run.
        RunError: the checkpoint is corrupt.
    """
    storage, directory = find_checkpoint(where)
    sampler = Sampler(where)
    _check_names(request)
    settings, run = sampler.config.evaluate, sampler.config.run
    samples = request.samples or settings.samples
    generated = _generated(sampler, run.seed if request.seed is None else request.seed)
    folder = storage.uri if directory.startswith("checkpoints/") else storage.uri.rpartition("/")[0]
    cache = open_storage(folder.rpartition("/")[0])
    if request.data and generated.pairs is not None and not sampler.of_points:
        generated = replace(generated, pairs=sampler.pairs_in(request.data, samples))
    if sampler.of_points:
        return _score_points(sampler, request, generated, samples, cache, seen)
    return _compare(generated, _reals(sampler, request, samples), samples, settings, request, cache, seen)


def _compare(
    generated: ScoredImages,
    reals: RealImages,
    samples: int,
    settings: EvaluateConfig,
    request: ScoreRequest,
    cache: Storage,
    seen: Callable[[int, int], None],
) -> Evaluation:
    """Score images against real ones.

    Raises:
        UserError: a metric that was asked for cannot be had of them.
    """
    extractor = _extractor(settings, request)
    settings = settings.model_copy(update={"matcher": request.matcher or settings.matcher})
    if request.classifier_accuracy and not (generated.labels(samples) is not None and reals.classes):
        raise UserError("--classifier-accuracy: needs a conditional run (model.classes) and data with classes")
    scores = build_scores(SCORES if request.metrics is None else request.metrics, settings)
    if request.metrics is None:
        subject = ScoreSubject(generated, samples, cache, reals, extractor)
        # Some cost more than the images: they are computed where the run's own scores have them.
        offered = (name for name, score in scores.items() if not score.on_request or name in settings.metrics)
        scores = {name: scores[name] for name in offered if scores[name].unavailable(subject) is None}
    total = samples * (1 + len(baseline_names(generated))) + reals.samples
    keep = request.nearest is not None
    evaluator = Evaluator(extractor, reals, samples, scores, cache, lambda count: seen(count, total), keep)
    found = evaluator.score(generated)
    if request.classifier_accuracy:
        accuracy = classification_accuracy_score(generated, reals, samples)
        found = replace(found, metrics=found.metrics | {"classifier_accuracy": accuracy})
    if request.nearest:
        facts = {"extractor": extractor.name, "samples": str(samples), "seed": str(generated.seed)}
        assert evaluator.features is not None
        picture = nearest_png(generated, reals, evaluator.features, extractor, cache, facts)
        write_file(Path(expand_user(request.nearest)), picture, "--nearest")
    return found


def _check_names(request: ScoreRequest) -> None:
    """Check the names of scores, once the modules of the run have added theirs."""
    if unknown := [name for name in request.metrics or () if name not in SCORES]:
        raise UserError(f"--metrics: unknown metric {unknown[0]!r}; use fid, {', '.join(SCORES)}")


def _score_points(
    sampler: Sampler,
    request: ScoreRequest,
    generated: GeneratedImages,
    samples: int,
    cache: Storage,
    seen: Callable[[int, int], None],
) -> Evaluation:
    """Score a generator of points by mode coverage, or beside the real ones, and by scores of the user's own.

    Raises:
        UserError: an option is for images only, or the modes of the data are unknown.
    """
    metrics = sampler.config.evaluate.metrics if request.metrics is None else request.metrics
    for key in ("extractor", "extractor_weights", "classifier_accuracy", "nearest"):
        if getattr(request, key):
            option = key.replace("_", "-")
            raise UserError(f"--{option}: only for images; points are scored by mode coverage, so leave it out")
    if request.data and generated.pairs is not None:
        raise UserError("--data: a run that fills numbers is scored on rows of its own data; leave it out")
    shards = request.data or sampler.config.data.shards
    index = open_data(shards).index
    if generated.pairs is None and not known_mixture(index):
        raise UserError(f"data.shards: the modes of {shards} are unknown; known are those of {', '.join(MIXTURES)}")
    reals = _reals(sampler, request, samples)
    if request.metrics is None and generated.game.log_prob is not None:
        metrics = tuple(dict.fromkeys((*metrics, "bits_per_dimension")))
    scores = build_scores(metrics, sampler.config.evaluate)
    return PointEvaluator(index, samples, scores, cache, lambda count: seen(count, samples), reals).score(generated)


def _extractor(settings: EvaluateConfig, request: ScoreRequest) -> Extractor:
    """Open the requested extractor, or the one of the run with its weights."""
    name = request.extractor or settings.extractor
    own = settings.extractor_weights if name == settings.extractor else None
    return open_extractor(name, request.extractor_weights or own)


def _reals(sampler: Sampler, request: ScoreRequest, samples: int) -> RealImages:
    config = sampler.config.data
    if request.data is None:
        whole = open_data(config.shards, crop=config.crop)
        data = open_scored(whole, sampler.config.evaluate, samples, key="--samples")
    else:
        data = open_data(request.data, key="--data", crop=config.crop)
    if (data.index.image_size, data.index.channels) != (config.image_size, config.channels):
        raise UserError(
            f"--data {request.data}: images have {data.index.channels} channels and {data.index.image_size} pixels a "
            f"side, but those of the run {config.channels} and {config.image_size}; convert them with ganrun prepare "
            f"--size {config.image_size} --channels {config.channels}"
        )
    classes = _classes(sampler, request, data)
    cache, target = open_cache(config.cache_mib), sampler.config.objective.target
    return RealImages(data, samples, config.fields, config.damaged_share, cache, classes, target)


def _classes(sampler: Sampler, request: ScoreRequest, data: DataSet) -> tuple[str, ...] | None:
    """Return the run's class names by label, to which the labels of other data are renumbered; None: the data's own."""
    scores = build_scores(request.metrics or (), sampler.config.evaluate)
    asked = any("labels" in score.needs for score in scores.values()) or request.classifier_accuracy
    own = request.data is None and sampler.config.evaluate.shards is None
    if own or not sampler.classes or (request.metrics is not None and not asked):
        return None
    classes = open_data(sampler.config.data.shards).index.classes
    # The default metrics leave out those of classes where the classes differ; who asks for them is told.
    return classes if asked or set(classes) == set(data.index.classes) else ()


def _generated(sampler: Sampler, seed: int) -> GeneratedImages:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network in sampler.game.networks.values():
        network.to(device)
    return sampler.generated(seed)
