"""Inception score: Salimans et al. 2016, "Improved techniques for training GANs", https://arxiv.org/abs/1606.03498."""

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
    """exp(E_x KL(p(y|x) || p(y))), with p(y) the mean of p(y|x) over a split (there, section 4).

    Args:
        logits: of a classifier for generated images, [N, K]; N is at least `splits`. Rows that follow each other
            make a split, so their order must not follow the classes.

    Returns:
        In 1..K; higher is better.
    """
    ends = [number * len(logits) // splits for number in range(splits + 1)]
    scores = torch.stack([_score(logits[start:end].double()) for start, end in pairwise(ends)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - torch.tensor(len(logits), dtype=log_p.dtype).log()
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
