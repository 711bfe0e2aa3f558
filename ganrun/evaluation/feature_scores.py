"""Built-in scores of features: KID, precision, recall, density, coverage, inception score, scores of classes."""

import functools
import logging
import math
from abc import abstractmethod

from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ganrun.evaluation.frechet import frechet_distance
from ganrun.evaluation.inception_score import inception_score
from ganrun.evaluation.kid import draw_subsets, kernel_distance
from ganrun.evaluation.moments import FeatureMoments
from ganrun.evaluation.precision_recall import nearest
from ganrun.evaluation.score import Features, Score, ScoreSubject, Sums

logger = logging.getLogger(__name__)


class FeatureScore(Score):
    """A score of the features of all images."""

    needs = frozenset({"features"})

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the values by name."""
        assert features is not None
        kept = [each for each in (features.fake, features.logits) if each is not None]
        if not all(bool(each.isfinite().all()) for each in kept):
            raise ValueError("a generated image is not finite")
        return self.of(features)

    @abstractmethod
    def of(self, features: Features) -> dict[str, float]:
        """Return the values of finite features."""


class Kid(FeatureScore):
    """Kernel inception distance, see kid.py."""

    def of(self, features: Features) -> dict[str, float]:
        """Return the mean over the subsets, and the deviation."""
        subsets = draw_subsets(len(features.real), len(features.fake), features.seed)
        mean, deviation = kernel_distance(features.real, features.fake, subsets)
        return {"kid": mean, "kid_deviation": deviation}


class NeighbourScore(FeatureScore):
    """One of the four scores of precision_recall.py.

    Args:
        name: precision, recall, density or coverage.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, features: Features) -> dict[str, float]:
        """Return the score; see `Neighbourhoods` for its range."""
        return {self.name: getattr(features.neighbourhoods, self.name)}


precision, recall, density, coverage = (
    functools.partial(NeighbourScore, name) for name in ("precision", "recall", "density", "coverage")
)


class InceptionScore(FeatureScore):
    """Inception score, see inception_score.py."""

    needs = frozenset({"logits"})

    def of(self, features: Features) -> dict[str, float]:
        """Return mean and deviation over the splits."""
        if features.logits is None:
            raise ValueError("the extractor has no logits")
        mean, deviation = inception_score(features.logits)
        return {"inception_score": mean, "inception_score_deviation": deviation}


class ClassesHit(FeatureScore):
    """Number of classes that have the real image nearest to some generated one."""

    needs = frozenset({"features", "labels"})

    def of(self, features: Features) -> dict[str, float]:
        """Return the number of classes."""
        if features.real_labels is None:
            raise ValueError("the data has no labels")
        rows, _ = nearest(features.real, features.fake)
        hit = features.real_labels[rows[:, 0].cpu()]
        return {"classes_hit": float(len(set(hit.tolist())))}


class ClassFrechetDistance(FeatureScore):
    """Fréchet distance within each class of a conditional run."""

    needs = frozenset({"features", "labels"})

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if subject.generated.labels(1) is None:
            return "the images have no labels; it needs a run with model.classes > 0"
        return super().unavailable(subject)

    def of(self, features: Features) -> dict[str, float]:
        """Return the mean over the classes, and each class as `class_frechet_distance/CLASS`."""
        if features.real_labels is None or features.fake_labels is None:
            raise ValueError("the data has no labels" if features.real_labels is None else "the game is unconditional")
        sides = (features.real, features.real_labels), (features.fake, features.fake_labels)
        distances = {
            f"class_frechet_distance/{name}": frechet(
                *(_moments(rows[(of == k).to(rows.device)]) for rows, of in sides)
            )
            for k, name in enumerate(features.classes)
        }
        return {"class_frechet_distance": math.fsum(distances.values()) / len(distances), **distances}


def frechet(real: FeatureMoments, fake: FeatureMoments) -> float:
    """Return the Fréchet distance. One that cannot be computed is logged and NaN: it must not end a run."""
    try:
        return frechet_distance(real, fake)
    except (LinAlgError, ValueError) as error:
        logger.warning("a Fréchet distance could not be computed: %s", error)
        return math.nan


def _moments(features: Tensor) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1], features.device)
    moments.update(features)
    return moments
