"""Scores a generator against real images, each time with the same noise and the same real images."""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.config.registry import SCORES
from ganrun.evaluation.evaluation import Evaluation, distance_name
from ganrun.evaluation.feature_scores import frechet
from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep, extract_generated, extract_real
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import reference
from ganrun.evaluation.score import Features, ScoreSubject
from ganrun.evaluation.score_pass import ScorePass
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage


class Evaluator:
    """Computes scores of generated images. Features of the real images are extracted once.

    Args:
        extractor: feature extractor; it is moved to the device of the generator.
        reals: real images to compare with.
        samples: number of generated images.
        metrics: names of the scores beside the Fréchet distance.
        cache: storage for statistics of the real images, shared by all runs.
        seen: progress callback, called with the number of images in each chunk that this rank has processed.
    """

    def __init__(
        self,
        extractor: Extractor,
        reals: RealImages,
        samples: int,
        metrics: Sequence[str],
        cache: Storage,
        seen: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.extractor, self.reals, self.samples, self.cache = extractor, reals, samples, cache
        self.scores = {name: SCORES[name]() for name in metrics}
        needs = frozenset().union(*(score.needs for score in self.scores.values()))
        self._keep = Keep("features" in needs, "logits" in needs)
        self._needs_labels, self._seen = "labels" in needs, seen
        self._reference: FeatureStatistics | None = None
        self._labels: Tensor | None = None

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Evaluation:
        """Return the scores, the same on each rank. Collective over `group`.

        Raises:
            UserError: a metric cannot be computed for this run, or the data is corrupt.
        """
        extractor = self.extractor.to(generated.device)
        subject = ScoreSubject(generated, self.samples, self.cache, self.reals, extractor, group)
        running = ScorePass(self.scores, subject)
        if self._reference is None:
            self._reference = self._real_statistics(group)
        images = self._counted(running.watch(generated.images))
        fake = extract_generated(images, self.samples, BATCH, extractor, group, self._keep)
        running.add_over_ranks()
        # Broadcast rank 0's numbers: their last bits may differ between CPU models.
        found = [self._evaluation(running, self._reference, fake, generated) if subject.is_first else None]
        if group is not None:
            dist.broadcast_object_list(found, group=group, group_src=0)
        assert found[0] is not None
        return found[0]

    def _evaluation(
        self, running: ScorePass, real: FeatureStatistics, fake: FeatureStatistics, generated: ScoredImages
    ) -> Evaluation:
        """Compute the Fréchet distance and the scores from statistics of one extractor."""
        values = running.results(self._features(real, fake, generated))
        name, distance = distance_name(self.extractor, self.samples), frechet(real.statistics, fake.statistics)
        facts, held_out = self.extractor.provenance, self.reals.held_out_by
        about = running.about
        return Evaluation(name, distance, self.samples, generated.seed, values, **facts, held_out=held_out, about=about)

    def _features(self, real: FeatureStatistics, fake: FeatureStatistics, generated: ScoredImages) -> Features | None:
        """Return what the scores need of all images, on the device of the extractor."""
        if not (self._keep.features or self._keep.logits):
            return None
        if self._needs_labels and self._labels is None:
            self._labels = self.reals.labels()
        nothing = torch.zeros(0, self.extractor.size)
        real_features, fake_features = (nothing if each.features is None else each.features for each in (real, fake))
        return Features(
            real_features.to(self.extractor.device),
            fake_features.to(self.extractor.device),
            fake.logits,
            self.reals.classes,
            self._labels,
            generated.labels(self.samples) if self._needs_labels else None,
            generated.seed,
        )

    def _real_statistics(self, group: dist.ProcessGroup | None) -> FeatureStatistics:
        reals, images = self.reals, self._counted(self.reals.images)
        make = functools.partial(extract_real, images, reals.samples, BATCH, self.extractor, group, self._keep)
        return reference(self.cache, reals.origin, make, self.extractor, group, self._keep)

    def _counted(self, images: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
        def counted(start: int, count: int) -> Tensor:
            made = images(start, count)
            self._seen(count)
            return made

        return counted
