"""Fréchet distance between two Gaussians: Dowson and Landau 1982, "The Fréchet distance between
multivariate normal distributions"; FID is Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6.
"""

import math

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ganrun.evaluation.moments import FeatureMoments

TOLERANCE = 1e-10
"""Error of the root's trace that is allowed, as a share of the traces of the covariances."""


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """The squared Fréchet (2-Wasserstein) distance between the Gaussians with the moments of a and b.

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

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
    return gaussian_distance(a.mean.cpu(), _covariance(a), b.mean.cpu(), _covariance(b))


def gaussian_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """As `frechet_distance`, of means [D] and covariances [D, D] in float64 on the CPU."""
    trace_of_root = _trace_of_root(covariance_a, covariance_b)
    difference = mean_a - mean_b
    return float(difference.square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root)


def _trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """tr((S_a S_b)^(1/2)).

    With S = F F^T, the eigenvalues of S_a S_b are the squared singular values of P = F_a^T F_b: the trace is
    their sum. No root of a product is taken, whose eigenvalues near 0 turn negative. Where both covariances
    are far from singular, the roots of the eigenvalues of P P^T are the same in a third of the time.
    """
    allowed = TOLERANCE * (a.trace() + b.trace())
    lower_a, lower_b = _cholesky(a), _cholesky(b)
    product = (_root(a) if lower_a is None else lower_a).T @ (_root(b) if lower_b is None else lower_b)
    if lower_a is not None and lower_b is not None and _pivot_ratio(lower_a) * _pivot_ratio(lower_b) > 1e-10:
        values = torch.linalg.eigvalsh(product @ product.T)
        # Each eigenvalue l is known within eps * max(l), hence its root within that over 2 sqrt(l).
        if values[0] > 0 and (torch.finfo(values.dtype).eps * values[-1] / (2 * values.sqrt())).sum() < allowed:
            product_roots: Tensor = values.sqrt()
            return product_roots.sum()
    singular_values: Tensor = torch.linalg.svdvals(product)
    return singular_values.sum()


def _covariance(statistics: FeatureMoments) -> Tensor:
    """The covariance [D, D] on the CPU; zeros where it is nothing but the rounding of the moments.

    The images of a generator that has collapsed to one differ by rounding alone, and on a matrix of that the
    eigenvalue solver may not converge.
    """
    covariance = statistics.covariance.cpu()
    second_moment = float(statistics.moments.abs().max()) / statistics.count
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps * second_moment
    return covariance if float(covariance.abs().max()) > rounding else torch.zeros_like(covariance)


def _cholesky(covariance: Tensor) -> Tensor | None:
    """The lower triangle L with L L^T = covariance [D, D]; None if it is singular but for rounding."""
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance)
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    return None if failed or _pivot_ratio(lower) < rounding else lower


def _pivot_ratio(lower: Tensor) -> float:
    """Smallest over largest pivot: never below the ratio of the eigenvalues."""
    pivots = lower.diagonal().square()
    return float(pivots.min() / pivots.max())


def _root(covariance: Tensor) -> Tensor:
    """V sqrt(W) [D, R] of the R eigenvalues above 0.

    Eigenvalues below rounding are dropped, not rooted: a root makes 1e-8 of a rounding error of 1e-16.
    """
    values: Tensor
    vectors: Tensor
    try:
        values, vectors = torch.linalg.eigh(covariance)
    except LinAlgError:  # Slower, but it converges where eigenvalues cluster.
        vectors, values, _ = torch.linalg.svd(covariance)
        values, vectors = values.flip(0), vectors.flip(1)
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    kept = values > rounding * values[-1].clamp(min=0)
    return vectors[:, kept] * values[kept].sqrt()
