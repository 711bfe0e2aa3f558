"""Inception score (Salimans et al. 2016, "Improved techniques for training GANs", arXiv:1606.03498, section 4)."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SPLITS = 10


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits."""

    mean: float
    deviation: float


def inception_score(logits: Tensor, splits: int = SPLITS) -> InceptionScore:
    """Return exp(E_x KL(p(y|x) || p(y))), with p(y) the mean of p(y|x) over a split.

    Args:
        logits: classifier logits of generated images, [N, K], N at least `splits`. A split is a range of rows, so rows
            must not be sorted by class.
        splits: number of splits.

    Returns:
        Mean and deviation over the splits. The score is in 1..K; higher is better.
    """
    ends = [number * len(logits) // splits for number in range(splits + 1)]
    scores = torch.stack([_score(logits[start:end].double()) for start, end in pairwise(ends)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - torch.tensor(len(logits), dtype=log_p.dtype).log()
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
