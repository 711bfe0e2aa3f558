"""Scores generators of points against the known modes of a mixture, without an extractor or real points."""

from collections.abc import Callable

import torch
import torch.distributed as dist

from ganrun.data.index import Index
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.modes import known_mixture, modes
from ganrun.evaluation.score import Score


class PointEvaluator:
    """Computes scores of generated points.

    Args:
        index: index of the training data.
        samples: number of generated points.
        seen: progress callback, called with the number of points in each chunk that this rank has processed.

    Raises:
        ValueError: the data was not drawn from a known mixture.
    """

    def __init__(self, index: Index, samples: int, seen: Callable[[int], None] = lambda count: None) -> None:
        of = known_mixture(index)
        if of is None:
            raise ValueError("the data was not drawn from a known mixture")
        self.mixture, self.source, self.samples, self._seen = of, index.made["source"], samples, seen

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Score:
        """Return the scores, the same on each rank. Collective over `group`."""
        rank, world = (0, 1) if group is None else (group.rank(), group.size())
        points = torch.zeros(self.samples, 2, dtype=torch.float64, device=generated.device)
        for start in range(rank * BATCH, self.samples, world * BATCH):
            made = generated.images(start, min(BATCH, self.samples - start)).flatten(1)
            points[start : start + len(made)] = made
            self._seen(len(made))
        if group is not None:
            dist.all_reduce(points, group=group)  # Adding zeros is exact.
        found = modes(points.cpu().numpy(), self.mixture)
        value = found.pop("mode_distance")
        name = f"mode distance ({self.source}, n={self.samples})"
        return Score(name, value, self.samples, generated.seed, found, "mode_distance")
