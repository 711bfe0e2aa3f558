"""Mean and covariance of features, gathered in batches, on many ranks, in float64."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

BLOCK = 512
"""Rows of the sums that are computed at once, each from the diagonal on: two thirds of the work at 2,048 features."""


class FeatureMoments:
    """Count, sum and sum of outer products of features, which add up over batches and ranks.

    With a 1 put before every feature vector, one matrix holds all three:

        moments = sum over x of [1, x] [1, x]^T = [[n, sum x^T], [sum x, sum x x^T]]

    Attributes:
        moments: float64 [D + 1, D + 1]. Being symmetric, it is filled on and above the diagonal alone.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        """Statistics of no features yet; `size` is D."""
        self.moments = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Adds features [B, D] of any floating type.

        In float64 the sums are exact to its rounding; float32 sums would shift a FID by about 3e-5.
        """
        x = F.pad(features.to(self.moments), (1, 0), value=1.0)
        for start in range(0, x.shape[1], BLOCK):
            rows = slice(start, start + BLOCK)
            self.moments[rows, start:].addmm_(x[:, rows].T, x[:, start:])

    def merge(self, other: "FeatureMoments") -> None:
        """Adds all that `other` has counted."""
        self.moments += other.moments.to(self.moments)

    def all_reduce(self, group: dist.ProcessGroup) -> None:
        """Merges the statistics of all ranks of `group` into each; all must call."""
        dist.all_reduce(self.moments, group=group)

    @property
    def count(self) -> int:
        """Feature vectors counted, n."""
        return int(self.moments[0, 0])

    @property
    def mean(self) -> Tensor:
        """float64 [D]; NaN of no features."""
        return self.moments[0, 1:] / self.moments[0, 0]

    @property
    def covariance(self) -> Tensor:
        """float64 [D, D], unbiased (over n - 1), as every published FID takes it.

        Raises:
            ValueError: fewer than two features were counted.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, there are {self.count}")
        mean, upper = self.mean, self.moments[1:, 1:].triu()
        second = upper + upper.triu(1).T
        return (second - self.count * mean.outer(mean)) / (self.count - 1)
