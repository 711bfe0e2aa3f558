"""Scores of generated images against real ones, and where they came from."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ganrun.config.field_types import Metric
from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep
from ganrun.evaluation.frechet import frechet_distance
from ganrun.evaluation.inception_score import inception_score
from ganrun.evaluation.kid import draw_subsets, kernel_distance
from ganrun.evaluation.moments import FeatureMoments
from ganrun.evaluation.precision_recall import nearest, neighbourhoods
from ganrun.models.extractors import INCEPTION_SHA256, Extractor

logger = logging.getLogger(__name__)

NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")
OF_CLASSES: tuple[Metric, ...] = ("class_frechet_distance", "classes_hit")
"""Metrics that need the labels of real images."""


@dataclass(frozen=True)
class Score:
    """A distance of images or of points, others beside it, and where they came from.

    Scores that differ in anything but their values are not comparable.

    Attributes:
        value: the distance that the best checkpoint has least of.
        samples: generated images it was measured on.
        seed: that these were drawn with.
        metrics: others by name; a class's own as `class_frechet_distance/{class}`.
        measure: the name of the value among the metrics.
        extractor: with its hash and resize filter; points need none.
    """

    name: str
    value: float
    samples: int
    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    measure: str = "frechet_distance"
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None

    @property
    def provenance(self) -> dict[str, str | None]:
        """What the features were taken by."""
        return {"extractor": self.extractor, "extractor_sha256": self.extractor_sha256, "resize": self.resize}

    def to_json(self) -> dict[str, Any]:
        """The fields; a value that is not finite, which JSON cannot say, is None."""
        values = self.values()
        return asdict(self) | {"value": values.pop(self.measure), "metrics": values}

    def values(self) -> dict[str, float | None]:
        """The numbers by metric; None where they are not finite."""
        values = {self.measure: self.value, **self.metrics}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Labels:
    """Classes of real and of generated images, int64 [N] and [M]; `fake` is None if nobody asked for a class."""

    classes: Sequence[str]
    real: Tensor
    fake: Tensor | None


def needed(metrics: Iterable[Metric]) -> Keep:
    """What must be kept of each image for these metrics."""
    features = any(name not in ("inception_score", "modes") for name in metrics)
    return Keep(features, logits="inception_score" in metrics)


def score(
    real: FeatureStatistics,
    fake: FeatureStatistics,
    extractor: Extractor,
    seed: int,
    metrics: Sequence[Metric] = (),
    labels: Labels | None = None,
) -> Score:
    """The Fréchet distance of `fake` from `real`, both of this extractor's features, and the metrics.

    One that cannot be had (a collapsed generator, too few samples) is NaN and logged: it must not end a run.
    """
    count = fake.statistics.count
    values = {"frechet_distance": _frechet(real.statistics, fake.statistics)}
    kept = [each for each in (fake.features, fake.logits) if each is not None]
    broken = not all(bool(each.isfinite().all()) for each in kept)
    for names in _groups(metrics):
        try:
            if broken:
                raise ValueError("a generated image is not finite")
            values |= _values(names, real, fake, extractor, seed, labels)
        except ValueError as error:
            logger.warning("%s could not be computed: %s", ", ".join(names), error)
            values |= dict.fromkeys(names, math.nan)
    value = values.pop("frechet_distance")
    name = score_name(extractor, count)
    return Score(name, value, count, seed, values, **extractor.provenance)


def score_name(extractor: Extractor, samples: int) -> str:
    """What a Fréchet distance may be called: FID is one network's with its published weights, and 50,000 samples."""
    if extractor.name != "inception-v3-compat" or extractor.sha256 != INCEPTION_SHA256:
        return f"Fréchet distance ({extractor.name}, n={samples})"
    return "FID" if samples == 50_000 else f"FID-{samples}"


def _groups(metrics: Sequence[Metric]) -> Iterable[tuple[Metric, ...]]:
    """Those that are computed together, together."""
    if close := tuple(name for name in metrics if name in NEIGHBOURHOODS):
        yield close
    for name in metrics:
        if name not in NEIGHBOURHOODS:
            yield (name,)


def _values(
    names: tuple[Metric, ...],
    real: FeatureStatistics,
    fake: FeatureStatistics,
    extractor: Extractor,
    seed: int,
    labels: Labels | None,
) -> dict[str, float]:
    if names == ("inception_score",):
        if fake.logits is None:
            raise ValueError(f"{extractor.name} gives no logits")
        mean, deviation = inception_score(fake.logits)
        return {"inception_score": mean, "inception_score_deviation": deviation}
    assert real.features is not None
    assert fake.features is not None
    features = real.features.to(extractor.device), fake.features.to(extractor.device)
    if names == ("kid",):
        mean, deviation = kernel_distance(*features, draw_subsets(len(features[0]), len(features[1]), seed))
        return {"kid": mean, "kid_deviation": deviation}
    if names[0] in NEIGHBOURHOODS:
        four = neighbourhoods(*features)._asdict()
        return {name: four[name] for name in names}
    if labels is None:
        raise ValueError("the data has no labels")
    if names == ("classes_hit",):
        hit = labels.real[nearest(*features).cpu()]
        return {"classes_hit": float(len(set(hit.tolist())))}
    return _class_distances(*features, labels)


def _class_distances(real: Tensor, fake: Tensor, labels: Labels) -> dict[str, float]:
    """The Fréchet distance within each class, and their mean."""
    if labels.fake is None:
        raise ValueError("the generator is not asked for classes")
    distances = {}
    for number, name in enumerate(labels.classes):
        sides = []
        for features, of in ((real, labels.real), (fake, labels.fake)):
            statistics = FeatureMoments(features.shape[1], features.device)
            statistics.update(features[(of == number).to(features.device)])
            sides.append(statistics)
        distances[f"class_frechet_distance/{name}"] = _frechet(*sides)
    mean = math.fsum(distances.values()) / len(distances)
    return {"class_frechet_distance": mean, **distances}


def _frechet(real: FeatureMoments, fake: FeatureMoments) -> float:
    try:
        return frechet_distance(real, fake)
    except (LinAlgError, ValueError) as error:
        logger.warning("a Fréchet distance could not be computed: %s", error)
        return math.nan
