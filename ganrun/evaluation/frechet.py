"""Fréchet distance between two Gaussians: Dowson and Landau 1982, "The Fréchet distance between
multivariate normal distributions"; FID is Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6.
"""

import math

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ganrun.evaluation.statistics import Statistics


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Fréchet (2-Wasserstein) distance between the Gaussians with the moments of a and b.

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    With S = F F^T, the eigenvalues of S_a S_b are the squared singular values of F_a^T F_b, so the root's
    trace is the sum of these: no root of a product is taken, whose eigenvalues near 0 turn negative.

    Returns:
        At least 0, but for rounding; NaN if any feature was NaN or infinite.

    Raises:
        ValueError: one side has fewer than two samples, or the features are of different sizes.
    """
    if a.moments.shape != b.moments.shape:
        raise ValueError(f"features of {len(a.moments) - 1} and of {len(b.moments) - 1} have no distance")
    if not (a.moments.isfinite().all() and b.moments.isfinite().all()):
        return math.nan
    # on the CPU, since the two may be on different devices: one made here, one read from storage
    difference = a.mean.cpu() - b.mean.cpu()
    covariance_a, covariance_b = _covariance(a), _covariance(b)
    trace_of_root = torch.linalg.svdvals(_factor(covariance_a).T @ _factor(covariance_b)).sum()
    return float(difference.square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root)


def _covariance(statistics: Statistics) -> Tensor:
    """The covariance [D, D] on the CPU; zeros where it is nothing but the rounding of the moments.

    The images of a generator that has collapsed to one differ by rounding alone, and on a matrix of that the
    eigenvalue solver may not converge.
    """
    covariance = statistics.covariance.cpu()
    second_moment = float(statistics.moments.abs().max()) / statistics.count
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps * second_moment
    return covariance if float(covariance.abs().max()) > rounding else torch.zeros_like(covariance)


def _factor(covariance: Tensor) -> Tensor:
    """Some F [D, R] with F F^T = covariance [D, D]: Cholesky's, or V sqrt(W) of the R eigenvalues above 0.

    Eigenvalues below rounding are dropped, not rooted: a root makes 1e-8 of a rounding error of 1e-16.
    """
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance)
    pivots = lower.diagonal().square()
    if not failed and pivots.min() > rounding * pivots.max():
        return lower
    values: Tensor
    vectors: Tensor
    try:
        values, vectors = torch.linalg.eigh(covariance)
    except LinAlgError:  # Slower, but it converges where eigenvalues cluster.
        vectors, values, _ = torch.linalg.svd(covariance)
        values, vectors = values.flip(0), vectors.flip(1)
    kept = values > rounding * values[-1].clamp(min=0)
    return vectors[:, kept] * values[kept].sqrt()
