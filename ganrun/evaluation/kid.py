"""Kernel inception distance, KID (Bińkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401).

Shapes: N real and M generated images, n and m samples of each in a subset, D features.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.rng import numpy_stream

SUBSETS, SUBSET_SIZE = 100, 1_000
"""Number and size of the subsets, as in published scores."""


class KernelDistance(NamedTuple):
    """Mean and standard deviation over the subsets; the deviation is NaN where there is but one subset."""

    mean: float
    deviation: float


def kernel_distance(real: Tensor, fake: Tensor, subsets: Iterable[tuple[Tensor, Tensor]]) -> KernelDistance:
    """Return the squared maximum mean discrepancy between features, averaged over subsets.

    The estimator is unbiased for any number of samples: its mean is 0 for equal distributions, so values may be
    negative.

    Args:
        real: features [N, D] of any floating type; the computation is in float64.
        fake: features [M, D].
        subsets: (rows of `real` [n], rows of `fake` [m]) per subset, as from `draw_subsets`.
    """
    distances = torch.stack([_squared_mmd(real[rows].double(), fake[others].double()) for rows, others in subsets])
    deviation = float(distances.std(correction=0)) if len(distances) > 1 else math.nan
    return KernelDistance(float(distances.mean()), deviation)


def draw_subsets(real: int, fake: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw rows of `real` and of `fake` features without repetition within a subset.

    Subsets are smaller where there are fewer samples; where a subset is all samples of both, there is only one.
    """
    random, size = numpy_stream(seed, "evaluate/kid"), min(SUBSET_SIZE, real, fake)
    for _ in range(1 if real == fake == size else SUBSETS):
        rows, others = (random.choice(count, size, replace=False) for count in (real, fake))
        yield torch.from_numpy(rows), torch.from_numpy(others)


def _squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased estimate of MMD^2 (eq. 4) for samples x [n, D] and y [m, D]:

    sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / (n m)
    """
    return _mean_off_diagonal(_kernel(x, x)) + _mean_off_diagonal(_kernel(y, y)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return the cubic polynomial kernel k(x, y) = (x.y / D + 1)^3 of each pair, [n, m]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(kernel: Tensor) -> Tensor:
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))
