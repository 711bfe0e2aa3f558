"""Mean and covariance of features in float64, accumulated over batches and ranks."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

BLOCK = 512
"""Rows of the moment matrix per matrix product, each from the diagonal on: two thirds of the work for D = 2,048."""


class FeatureMoments:
    """Count, sum and sum of outer products of feature vectors x [D]. All three add up over batches and ranks.

    One matrix holds them, with a 1 prepended to each x:

        moments = sum over x of [1, x] [1, x]^T = [[n, sum x^T], [sum x, sum x x^T]]

    Attributes:
        moments: float64 [D + 1, D + 1], symmetric; only the upper triangle is filled.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        """Start with no features; `size` is D."""
        self.moments = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add features [B, D] of any floating type. Sums are float64: float32 would shift an FID by about 3e-5."""
        x = F.pad(features.to(self.moments), (1, 0), value=1.0)
        for start in range(0, x.shape[1], BLOCK):
            rows = slice(start, start + BLOCK)
            self.moments[rows, start:].addmm_(x[:, rows].T, x[:, start:])

    def merge(self, other: "FeatureMoments") -> None:
        """Add the moments of `other`."""
        self.moments += other.moments.to(self.moments)

    def all_reduce(self, group: dist.ProcessGroup) -> None:
        """Sum the moments over all ranks of `group`. Collective."""
        dist.all_reduce(self.moments, group=group)

    @property
    def count(self) -> int:
        """n, number of feature vectors added."""
        return int(self.moments[0, 0])

    @property
    def mean(self) -> Tensor:
        """Mean, float64 [D]; NaN without features."""
        return self.moments[0, 1:] / self.moments[0, 0]

    @property
    def covariance(self) -> Tensor:
        """Covariance, float64 [D, D], unbiased (divided by n - 1), as in published FIDs.

        Raises:
            ValueError: fewer than two feature vectors.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        mean, upper = self.mean, self.moments[1:, 1:].triu()
        second = upper + upper.triu(1).T
        return (second - self.count * mean.outer(mean)) / (self.count - 1)
