"""Scores a generator against real images, each time with the same noise and the same real images."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.evaluation.baselines import BaselineImages, baseline_names, baselines, cache_name, read_values, write_values
from ganrun.evaluation.evaluation import Evaluation, distance_name
from ganrun.evaluation.feature_scores import frechet
from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep, extract_generated, extract_real
from ganrun.evaluation.generated_images import BATCH, GeneratedImages, ScoredImages
from ganrun.evaluation.ranks import from_rank_0
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import reference
from ganrun.evaluation.score import Features, Score, ScoreSubject
from ganrun.evaluation.score_pass import ScorePass
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage
from ganrun.telemetry.baselines import AT

GPU_NUMBERS = 2**22
"""Most numbers in a chunk of images on a GPU, which is idle between small chunks."""
BASELINES_FORMAT = 2
"""Of the kept scores of baselines: raise it where a score or a baseline gets other values, and they are computed again.

Names of scores are enough beside it: files of weights that they read, LPIPS's, have a fixed SHA-256.
"""


def gpu_chunk(numbers: int) -> int:
    """Return how many images of so many numbers are generated, or read, at once on a GPU: a multiple of BATCH."""
    return max(1, GPU_NUMBERS // (numbers * BATCH)) * BATCH


class Evaluator:
    """Computes scores of generated images. Features of the real images are extracted once.

    Args:
        extractor: feature extractor; it is moved to the device of the generator.
        reals: real images to compare with.
        samples: number of generated images.
        scores: scores beside the Fréchet distance, by name.
        cache: storage for statistics of the real images, shared by all runs.
        seen: progress callback, called with the number of images in each chunk that this rank has processed.
        keep_features: keep those of the generated and of the real images, whatever the scores need.

    Attributes:
        features: of the newest generated images and the real ones on rank 0, if they are kept or a score needs them.
    """

    def __init__(
        self,
        extractor: Extractor,
        reals: RealImages,
        samples: int,
        scores: Mapping[str, Score],
        cache: Storage,
        seen: Callable[[int], None] = lambda count: None,
        keep_features: bool = False,
    ) -> None:
        self.extractor, self.reals, self.samples, self.cache = extractor, reals, samples, cache
        self.scores = scores
        needs = frozenset().union(*(score.needs for score in scores.values()))
        self._keep = Keep(keep_features or "features" in needs, "logits" in needs)
        self.features: Features | None = None
        self._needs_labels, self._seen = "labels" in needs, seen
        self._reference: FeatureStatistics | None = None
        self._labels: Tensor | None = None
        self._of_baselines: dict[str, float] | None = None

    def score(self, generated: ScoredImages, group: dist.ProcessGroup | None = None) -> Evaluation:
        """Return the scores, the same on each rank. Collective over `group`.

        Raises:
            UserError: a metric cannot be computed for this run, or the data is corrupt.
        """
        self.extractor.to(generated.device)
        made = self._score(generated, group)
        if self._of_baselines is None:
            self._of_baselines = self._score_baselines(generated, group)
        # Broadcast rank 0's numbers: their last bits may differ between CPU models.
        found = from_rank_0(made and replace(made, metrics=made.metrics | self._of_baselines), group)
        assert found is not None
        return found

    def _score(self, generated: ScoredImages, group: dist.ProcessGroup | None) -> Evaluation | None:
        """Return the scores of generated images, or of a baseline's, on rank 0; None on other ranks. Collective."""
        subject = ScoreSubject(generated, self.samples, self.cache, self.reals, self.extractor, group)
        scores = self.scores
        if isinstance(generated, BaselineImages):
            scores = {name: score for name, score in scores.items() if not score.of_networks}
        running = ScorePass(scores, subject)  # First: it refuses what cannot be computed.
        if self._reference is None:
            self._reference = self._real_statistics(group)
        images, chunk = self._counted(running.watch(generated.images)), self._chunk()
        fake = extract_generated(images, self.samples, chunk, self.extractor, group, self._keep)
        running.add_over_ranks()
        return self._evaluation(running, self._reference, fake, generated) if subject.is_first else None

    def _score_baselines(self, generated: ScoredImages, group: dist.ProcessGroup | None) -> dict[str, float]:
        """Return the scores of the baselines by column on rank 0, {} on other ranks. They are kept for all runs.

        Collective.
        """
        first, name = group is None or group.rank() == 0, self._baselines_name(generated)
        kept = read_values(self.cache, name) if first and name else None
        if from_rank_0(kept is not None, group):
            return kept or {}
        found: dict[str, float] = {}
        for baseline, images in baselines(generated, self.samples, group).items():
            if made := self._score(images, group):
                values = {made.measure: made.value} | made.metrics
                found |= {f"{score}{AT}{baseline}": value for score, value in values.items()}
        if first and name and found:
            write_values(self.cache, name, found)
        return found

    def _baselines_name(self, generated: ScoredImages) -> str | None:
        """Return the name under which scores of baselines are kept; None if a user's code has a part in them."""
        pairs = generated.pairs if isinstance(generated, GeneratedImages) else None
        own = [name for name, score in self.scores.items() if not type(score).__module__.startswith("ganrun.")]
        if pairs is None or pairs.origin is None or own:
            return None
        settings = {
            "format": BASELINES_FORMAT,
            "scores": sorted(self.scores),
            "baselines": baseline_names(generated),  # Some need a package that may be missing here.
            "images": self.samples,
            "seed": generated.seed,
        }
        return cache_name({**pairs.origin, **self.reals.origin, **self.extractor.provenance, **settings})

    def _evaluation(
        self, running: ScorePass, real: FeatureStatistics, fake: FeatureStatistics, generated: ScoredImages
    ) -> Evaluation:
        """Compute the Fréchet distance and the scores from statistics of one extractor."""
        features = self._features(real, fake, generated)
        if not isinstance(generated, BaselineImages):
            self.features = features
        values = running.results(features)
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
        make = functools.partial(extract_real, images, reals.samples, self._chunk(), self.extractor, group, self._keep)
        return reference(self.cache, reals.origin, make, self.extractor, group, self._keep)

    def _chunk(self) -> int:
        if self.extractor.device.type != "cuda":
            return BATCH
        index = self.reals.data.index
        return gpu_chunk(index.channels * index.image_size**2)

    def _counted(self, images: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
        def counted(start: int, count: int) -> Tensor:
            made = images(start, count)
            self._seen(count)
            return made

        return counted
