"""Scores a generator against real images, each time with the same noise and the same real images."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch.distributed as dist
from torch import Tensor

from ganrun.config.field_types import Metric
from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import FeatureStatistics, extract_generated, extract_real
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import reference
from ganrun.evaluation.score import OF_CLASSES, Labels, Score, needed, score
from ganrun.evaluation.stacked_modes import StackedModes, is_stacked
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage


def unavailable(extractor: Extractor, reals: RealImages, generated: ScoredImages) -> dict[Metric, str]:
    """Return the metrics that cannot be computed for this extractor, data and images, each with the reason."""
    reasons: dict[Metric, str] = {}
    if not extractor.classes:
        reasons["inception_score"] = f"the extractor {extractor.name} has no logits; use inception-v3-compat"
    if generated.labels(1) is None:
        reasons["class_frechet_distance"] = "the images have no labels; it needs a run with model.classes > 0"
    if not reals.classes:
        reasons |= dict.fromkeys(OF_CLASSES, "the data has no classes")
    if not is_stacked(reals):
        reasons["modes"] = "the data are not stacked images; make them with ganrun prepare stacked:"
    return reasons


class Evaluator:
    """Computes scores of generated images. Features of the real images are extracted once.

    Args:
        extractor: feature extractor; it is moved to the device of the generator.
        reals: real images to compare with.
        samples: number of generated images.
        metrics: metrics beside the Fréchet distance.
        cache: storage for statistics of the real images, shared by all runs.
        seen: progress callback, called with the number of images in each chunk that this rank has processed.
    """

    def __init__(
        self,
        extractor: Extractor,
        reals: RealImages,
        samples: int,
        metrics: Sequence[Metric],
        cache: Storage,
        seen: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.extractor, self.reals, self.samples, self.metrics = extractor, reals, samples, metrics
        self.cache, self._seen = cache, seen
        self._keep = needed(metrics)
        self._reference: FeatureStatistics | None = None
        self._labels: Tensor | None = None
        self._modes = StackedModes(reals, cache) if "modes" in metrics else None

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Score:
        """Return the scores, the same on each rank. Collective over `group`.

        Raises:
            UserError: a metric cannot be computed for this run, or the data is corrupt.
        """
        for metric, reason in unavailable(self.extractor, self.reals, generated).items():
            if metric in self.metrics:
                raise UserError(f"metrics: {metric} cannot be computed: {reason}")
        extractor, first = self.extractor.to(generated.device), group is None or group.rank() == 0
        if self._reference is None:
            self._reference = self._real_statistics(group)
        images = self._counted(generated.images)
        fake = extract_generated(images, self.samples, BATCH, extractor, group, self._keep)
        # Broadcast rank 0's numbers: their last bits may differ between CPU models.
        found = [self._score(fake, generated) if first else None]
        if group is not None:
            dist.broadcast_object_list(found, group=group, group_src=0)
        assert found[0] is not None
        if self._modes is None:
            return found[0]
        return replace(found[0], metrics=found[0].metrics | self._modes.measure(generated, self.samples, group))

    def _score(self, fake: FeatureStatistics, generated: ScoredImages) -> Score:
        labels = None
        if self.reals.classes and set(self.metrics) & {*OF_CLASSES}:
            if self._labels is None:
                self._labels = self.reals.labels()
            labels = Labels(self.reals.classes, self._labels, generated.labels(self.samples))
        assert self._reference is not None
        metrics = [name for name in self.metrics if name != "modes"]
        found = score(self._reference, fake, self.extractor, generated.seed, metrics, labels)
        return replace(found, held_out=self.reals.data.held_out_by)

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
