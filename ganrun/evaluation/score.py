"""Interface of a score: a number that compares generated images with real ones, or judges them alone.

A score of your own is a subclass of `Score` in `SCORES` (docs/extending.md). `feature_scores.py` has the built-in ones.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch.distributed as dist
from torch import Tensor

from ganrun.config.registry import SCORES, offered
from ganrun.config.schema import EvaluateConfig
from ganrun.evaluation.generated_images import ScoredImages
from ganrun.evaluation.precision_recall import Neighbourhoods, neighbourhoods
from ganrun.evaluation.real_images import RealImages
from ganrun.models.extractors import Extractor
from ganrun.models.given import Given
from ganrun.storage import Storage

Sums = dict[str, Tensor]
"""Running sums of a score by name, float64. They are added over the ranks after the last chunk."""


@dataclass(frozen=True)
class ScoreBatch:
    """A chunk of generated images, on the device of the generator.

    Attributes:
        images: [B, C, H, W] in [-1, 1]; of a diverged generator some may be NaN.
        labels: int64 [B] on the CPU; None if the game is unconditional.
        given: the condition that they were generated for; empty if there is none.
        truth: the real images that belong to them, [B, C, H, W] in [-1, 1]; None if there are none.
        later: makes what follows the images in a roll-out, with the real images, at horizons 2, 3, ...
    """

    images: Tensor
    labels: Tensor | None
    given: Given = field(default_factory=dict)
    truth: Tensor | None = None
    later: Callable[[], list[tuple[Tensor, Tensor]]] = list


@dataclass(frozen=True)
class Features:
    """Features of N real and M generated images, for scores that look at all of them at once.

    Attributes:
        real, fake: [N, D] and [M, D].
        logits: of the generated images, [M, K]; None unless the score needs them.
        classes: names of the classes by label; empty without labels.
        real_labels, fake_labels: int64 [N] and [M]; None without labels.
        seed: seed of the generated images, and of whatever a score draws.
    """

    real: Tensor
    fake: Tensor
    logits: Tensor | None = None
    classes: Sequence[str] = ()
    real_labels: Tensor | None = None
    fake_labels: Tensor | None = None
    seed: int = 0

    @functools.cached_property
    def neighbourhoods(self) -> Neighbourhoods:
        """Precision, recall, density and coverage, which share their distances."""
        return neighbourhoods(self.real, self.fake)


@dataclass(frozen=True)
class ScoreSubject:
    """All that is scored, and against what.

    Attributes:
        generated: the generated images, or points.
        samples: M, number of them.
        cache: storage that all runs share.
        reals: the real images, or points; None where there are none.
        extractor: the feature extractor; None for points.
        group: process group of the participating ranks; None for a single process.
    """

    generated: ScoredImages
    samples: int
    cache: Storage
    reals: RealImages | None = None
    extractor: Extractor | None = None
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """True on rank 0 of the group."""
        return self.group is None or self.group.rank() == 0


class Score(ABC):
    """A score of generated images. One object scores one run again and again.

    Every rank calls `start`, then `update` with its own chunks. After the sums are added over the ranks, rank 0 calls
    `result`. Chunks are the same for any number of ranks.
    """

    needs: frozenset[str] = frozenset()
    """Inputs of `result` beside the sums: "features", "logits", "labels" (of the real images)."""

    of_networks: bool = False
    """True if it is of the networks and not of the images that they generate: baselines have no such value."""

    on_request: bool = False
    """True if it costs more than the images do: `ganrun evaluate` computes it only if it is among the run's metrics, or
    asked for by name."""

    starts_alone: bool = False
    """True if no rank waits for another in `start`: a fault in it then makes the score NaN and does not end the run."""

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if self.needs and (subject.extractor is None or subject.reals is None):
            return "points have no features; leave it out"
        if "logits" in self.needs and subject.extractor and not subject.extractor.classes:
            return f"the extractor {subject.extractor.name} has no logits; use inception-v3-compat"
        if "labels" in self.needs and subject.reals and not subject.reals.classes:
            return "the data has no classes"
        return None

    def about(self, subject: ScoreSubject) -> str:
        """Return what the value is of, for its provenance, where its name does not say it; empty: nothing to add."""
        return ""

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the sums at zero, float64 on the device of the images. Collective, unless `starts_alone`."""
        return {}

    def update(self, sums: Sums, batch: ScoreBatch) -> None:  # noqa: B027  Scores of features alone have no sums.
        """Add a chunk of generated images to the sums, in place."""

    @abstractmethod
    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the values by name; that of the score itself under its registered name.

        Args:
            sums: the sums over all images.
            features: features of all images if the score needs them, else None.

        Raises:
            ValueError: it cannot be computed of these images; it is then logged and NaN.
        """


def build_scores(names: Iterable[str], settings: EvaluateConfig | None = None) -> dict[str, Score]:
    """Build registered scores by name. A function with an argument `evaluate` receives that section of the config."""
    return {name: offered(SCORES[name], evaluate=settings or EvaluateConfig())() for name in names}
