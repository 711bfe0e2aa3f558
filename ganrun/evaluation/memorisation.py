"""Memorisation: are generated images nearer to the training images than held-out ones are?

Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), the test for data-copying. With d(x) the distance of x in feature
space to the nearest training image, Q the generated and P the held-out images,

    Delta_T = Pr(d(Q) > d(P)),    Z_U = (U - mn / 2) / sqrt(mn (m + n + 1) / 12),

where U is the number of pairs with d(Q) > d(P) among m generated and n held-out images, ties counted half: the
statistic of Mann & Whitney. If nothing is copied, d(Q) and d(P) are alike and Delta_T is 1/2. This is the paper's test
with one cell; its C_T divides the space into cells, and so finds copying in one region beside poor images in another.

Shapes: N training images, m generated and n held-out ones, D features.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from ganrun.evaluation.feature_scores import FeatureScore
from ganrun.evaluation.feature_statistics import FeatureStatistics, Keep, extract_real
from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.precision_recall import nearest
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import reference
from ganrun.evaluation.score import Features, ScoreSubject, Sums
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage

MOST = 50_000
"""Most training images that are looked at, evenly spaced."""


class Memorisation(FeatureScore):
    """Share of pairs of a generated and a held-out image of which the generated one is nearer to the training images.

    It is 1 - Delta_T: 0.5 if nothing is memorised, 1 if all images are copies, below 0.5 if they are farther from the
    data than other real images are.
    """

    on_request = True

    def __init__(self) -> None:
        self._training: Tensor | None = None
        self._extracted = False

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if reason := super().unavailable(subject):
            return reason
        if subject.reals is None or subject.reals.trained_on(MOST) is None:
            return (
                "it compares with samples that are held out of training, and there are none; set "
                "evaluate.held_out_share, or evaluate.shards"
            )
        return None

    def about(self, subject: ScoreSubject) -> str:
        """Return between what the distances are."""
        training = subject.reals and subject.reals.trained_on(MOST)
        assert training
        assert subject.reals
        return (
            f"share of pairs; distances to the nearest of {training.samples:,} of {training.data.samples:,} training "
            f"images, beside those of {subject.reals.samples:,} held-out ones"
        )

    def start(self, subject: ScoreSubject) -> Sums:
        """Extract the features of the training images, once. Collective."""
        if not self._extracted:
            assert subject.reals
            assert subject.extractor
            training = subject.reals.trained_on(MOST)
            assert training
            self._training = training_features(training, subject.extractor, subject.cache, subject.group)
            self._extracted = True
        return {}

    def of(self, features: Features) -> dict[str, float]:
        """Return the share, Z_U of the paper (far below 0: copies), and the medians of both distances."""
        assert self._training is not None
        training = self._training.to(features.fake.device)
        generated, held_out = (nearest(training, each)[1][:, 0] for each in (features.fake, features.real))
        share = share_nearer(generated, held_out)
        m, n = len(generated), len(held_out)
        return {
            "memorisation": share,
            "memorisation_z": (0.5 - share) * m * n / math.sqrt(m * n * (m + n + 1) / 12),
            "memorisation_distance": float(generated.median()),
            "memorisation_distance_held_out": float(held_out.median()),
        }


def share_nearer(generated: Tensor, held_out: Tensor) -> float:
    """Return the share of pairs in which the first of distances [m] and [n] is smaller; ties count half."""
    ordered = held_out.sort().values
    below = torch.searchsorted(ordered, generated)
    up_to = torch.searchsorted(ordered, generated, right=True)
    return 1 - float((below + up_to).double().mean()) / (2 * len(held_out))


def training_features(
    images: RealImages, extractor: Extractor, cache: Storage, group: dist.ProcessGroup | None = None
) -> Tensor | None:
    """Return features [N, D] of training images on rank 0, else None; they are kept for all runs. Collective."""
    keep = Keep(features=True)

    def extract() -> FeatureStatistics:
        return extract_real(images.images, images.samples, BATCH, extractor, group, keep)

    return reference(cache, images.origin, extract, extractor, group, keep).features
