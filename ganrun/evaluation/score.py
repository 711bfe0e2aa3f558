"""Scores of generated images against real ones, with their provenance."""

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
"""Metrics that need labels of the real images."""


@dataclass(frozen=True)
class Score:
    """Main distance of generated images or points, further metrics, and provenance.

    Two scores are comparable only if name, samples and provenance are equal.

    Attributes:
        name: full name of the distance, see `score_name`.
        value: main distance; the best checkpoint has the lowest.
        samples: number of generated images.
        seed: seed of their noise.
        metrics: further metrics by name; per class as `class_frechet_distance/CLASS`.
        measure: metric name of `value`.
        extractor: name of the extractor; None for points.
        extractor_sha256: SHA-256 of its weights; None for points.
        resize: its resize filter; None for points.
        held_out: setting that kept the real images out of training, see `DataSet.held_out_by`; None: none did.
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
    held_out: str | None = None

    @property
    def provenance(self) -> dict[str, str | None]:
        """Extractor, hash of its weights, resize filter and held-out rule."""
        names = ("extractor", "extractor_sha256", "resize", "held_out")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON. Values that are not finite become None."""
        values = self.values()
        return asdict(self) | {"value": values.pop(self.measure), "metrics": values}

    def values(self) -> dict[str, float | None]:
        """Return all numbers by metric; None if not finite."""
        values = {self.measure: self.value, **self.metrics}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Labels:
    """Labels of real images, int64 [N], and of generated ones, int64 [M] or None if the game is unconditional."""

    classes: Sequence[str]
    real: Tensor
    fake: Tensor | None


def needed(metrics: Iterable[Metric]) -> Keep:
    """Return the values that these metrics need of each image."""
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
    """Compute the Fréchet distance and the metrics from statistics of one extractor.

    A metric that cannot be computed (collapsed generator, too few samples) is logged and NaN: it must not end a run.

    Args:
        real: statistics of real images.
        fake: statistics of generated images.
        extractor: the extractor of both.
        seed: seed of the generated images; it also seeds the subsets of KID.
        metrics: metrics beside the Fréchet distance.
        labels: labels of both; needed by metrics of classes.
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
    """Return the name of a Fréchet distance. "FID" needs the original Inception weights and 50,000 samples."""
    if extractor.name != "inception-v3-compat" or extractor.sha256 != INCEPTION_SHA256:
        return f"Fréchet distance ({extractor.name}, n={samples})"
    return "FID" if samples == 50_000 else f"FID-{samples}"


def _groups(metrics: Sequence[Metric]) -> Iterable[tuple[Metric, ...]]:
    """Group metrics by their common computation: precision, recall, density and coverage together, others alone."""
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
            raise ValueError(f"the extractor {extractor.name} has no logits")
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
    """Return the Fréchet distance within each class, and their mean."""
    if labels.fake is None:
        raise ValueError("the game is unconditional")
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
