"""Scores generators of points, without an extractor.

Points of a mixture are scored against its known modes. Points with filled numbers, rows of a table, are scored beside
the real ones that belong to them: by the Fréchet distance of the rows themselves, where Gaussians are fitted to their
numbers instead of to features.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.data.index import Index
from ganrun.evaluation.baselines import baselines
from ganrun.evaluation.evaluation import Evaluation
from ganrun.evaluation.feature_scores import frechet
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.modes import known_mixture, modes
from ganrun.evaluation.moments import FeatureMoments
from ganrun.evaluation.ranks import from_rank_0, place_in
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Score, ScoreSubject
from ganrun.evaluation.score_pass import ScorePass
from ganrun.storage import Storage
from ganrun.telemetry.baselines import AT


class PointEvaluator:
    """Computes scores of generated points.

    Args:
        index: index of the training data.
        samples: number of generated points.
        scores: scores beside mode coverage or the Fréchet distance, by name.
        cache: storage that all runs share.
        seen: progress callback, called with the number of points in each chunk that this rank has processed.
        reals: real points, for scores of a density; None: there are none.
    """

    def __init__(
        self,
        index: Index,
        samples: int,
        scores: Mapping[str, Score],
        cache: Storage,
        seen: Callable[[int], None] = lambda count: None,
        reals: RealImages | None = None,
    ) -> None:
        self.mixture, self.samples, self._seen = known_mixture(index), samples, seen
        self.source, self.numbers = index.made.get("source"), index.channels
        self.scores, self.cache, self.reals = scores, cache, reals
        self._of_baselines: dict[str, float] | None = None

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Evaluation:
        """Return the scores, the same on each rank. Collective over `group`.

        Raises:
            UserError: a metric cannot be computed for points.
            ValueError: neither do real points belong to the generated ones, nor are the modes of the data known.
        """
        made = self._score(generated, group)
        if self._of_baselines is None:
            self._of_baselines = {}
            for baseline, points in baselines(generated, self.samples, group).items():
                other = self._score(points, group)
                values = {other.measure: other.value} | other.metrics
                self._of_baselines |= {f"{score}{AT}{baseline}": value for score, value in values.items()}
        # Rank 0's numbers: their last bits may differ between CPU models.
        return from_rank_0(replace(made, metrics=made.metrics | self._of_baselines), group)

    def _score(self, generated: ScoredImages, group: dist.ProcessGroup | None) -> Evaluation:
        """Return the scores of generated points, or of a baseline's. Collective."""
        running = ScorePass(self.scores, ScoreSubject(generated, self.samples, self.cache, self.reals, group=group))
        points = self._gathered(running.watch(generated.images), generated.device, group)
        running.add_over_ranks()
        if generated.truth(0, 1) is not None:
            real = self._gathered(lambda start, count: _truth(generated, start, count), generated.device, group)
            name, measure = f"Fréchet distance (of the numbers, n={self.samples})", "frechet_distance"
            found = {measure: frechet(_moments(real), _moments(points))}
        elif self.mixture is not None:
            name, measure = f"mode distance ({self.source}, n={self.samples})", "mode_distance"
            found = modes(points.cpu().numpy(), self.mixture)
        else:
            raise ValueError("the data was not drawn from a known mixture")
        value, metrics = found.pop(measure), found | running.results(None)
        held_out = None if self.reals is None else self.reals.held_out_by
        about = running.about
        return Evaluation(name, value, self.samples, generated.seed, metrics, measure, held_out=held_out, about=about)

    def _gathered(
        self, points_of: Callable[[int, int], Tensor], device: torch.device, group: dist.ProcessGroup | None
    ) -> Tensor:
        """Return the points of all ranks, float64 [samples, N]. Collective."""
        rank, world = place_in(group)
        chunks = range(rank * BATCH, self.samples, world * BATCH)
        parts = {start: points_of(start, min(BATCH, self.samples - start)).flatten(1) for start in chunks}
        points = torch.zeros(self.samples, self.numbers, dtype=torch.float64, device=device)
        for start, part in parts.items():
            points[start : start + len(part)] = part
            self._seen(len(part))
        if group is not None:
            dist.all_reduce(points, group=group)  # Adding zeros is exact.
        return points


def _truth(generated: ScoredImages, start: int, count: int) -> Tensor:
    truth = generated.truth(start, count)
    assert truth is not None
    return truth


def _moments(points: Tensor) -> FeatureMoments:
    """Return the moments of the rows [B, N] of which every number is known."""
    moments = FeatureMoments(points.shape[1])
    moments.update(points[~points.isnan().any(1)].cpu())
    return moments
