"""Classification accuracy score (Ravuri & Vinyals 2019, arXiv:1905.10887)."""

import torch

from ganrun.evaluation.classifier import accuracy, train_classifier
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.real_images import RealImages


def classification_accuracy_score(generated: ScoredImages, reals: RealImages, samples: int) -> float:
    """Return the accuracy in 0..1 on real images of a classifier trained on `samples` generated ones.

    Needs a conditional game and data with classes.
    """
    labels = generated.labels(samples)
    assert labels is not None
    starts = range(0, samples, BATCH)
    fakes = torch.cat([to_uint8(generated.images(start, min(BATCH, samples - start))).cpu() for start in starts])
    classifier = train_classifier(fakes, labels, len(reals.classes), generated.seed)
    return accuracy(classifier, reals.images(0, reals.samples), reals.labels())
