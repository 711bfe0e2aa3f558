"""Scores generators of points against the known modes of a mixture, without an extractor or real points."""

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from ganrun.data.index import Index
from ganrun.evaluation.evaluation import Evaluation
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.modes import known_mixture, modes
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Score, ScoreSubject
from ganrun.evaluation.score_pass import ScorePass
from ganrun.storage import Storage


class PointEvaluator:
    """Computes scores of generated points.

    Args:
        index: index of the training data.
        samples: number of generated points.
        scores: scores beside mode coverage, by name.
        cache: storage that all runs share.
        seen: progress callback, called with the number of points in each chunk that this rank has processed.
        reals: real points, for scores of a density; None: there are none.

    Raises:
        ValueError: the data was not drawn from a known mixture.
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
        of = known_mixture(index)
        if of is None:
            raise ValueError("the data was not drawn from a known mixture")
        self.mixture, self.source, self.samples, self._seen = of, index.made["source"], samples, seen
        self.scores, self.cache, self.reals = scores, cache, reals

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Evaluation:
        """Return the scores, the same on each rank. Collective over `group`.

        Raises:
            UserError: a metric cannot be computed for points.
        """
        rank, world = (0, 1) if group is None else (group.rank(), group.size())
        subject = ScoreSubject(generated, self.samples, self.cache, self.reals, group=group)
        running = ScorePass(self.scores, subject)
        images = running.watch(generated.images)
        points = torch.zeros(self.samples, self.mixture.centres.shape[1], dtype=torch.float64, device=generated.device)
        for start in range(rank * BATCH, self.samples, world * BATCH):
            made = images(start, min(BATCH, self.samples - start)).flatten(1)
            points[start : start + len(made)] = made
            self._seen(len(made))
        if group is not None:
            dist.all_reduce(points, group=group)  # Adding zeros is exact.
        running.add_over_ranks()
        found = modes(points.cpu().numpy(), self.mixture)
        value = found.pop("mode_distance")
        name = f"mode distance ({self.source}, n={self.samples})"
        metrics = found | running.results(None)
        held_out = None if self.reals is None else self.reals.held_out_by
        about = running.about
        return Evaluation(
            name, value, self.samples, generated.seed, metrics, "mode_distance", held_out=held_out, about=about
        )
