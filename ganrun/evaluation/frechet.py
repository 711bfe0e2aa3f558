"""Fréchet distance between two Gaussians (Dowson & Landau 1982, "The Fréchet distance between multivariate normal
distributions"), as in FID (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

Shapes: D features, R rank of a covariance.
"""

import math

import torch
from torch import Tensor

from ganrun.evaluation.moments import FeatureMoments

TOLERANCE = 1e-10
"""Allowed error of tr((S_a S_b)^(1/2)), relative to tr(S_a) + tr(S_b)."""


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance between Gaussians with the moments of a and b.

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Returns:
        A number at least 0 up to rounding; NaN if any feature was NaN or infinite.

    Raises:
        ValueError: a side has fewer than two samples, or the numbers of features differ.
    """
    if a.moments.shape != b.moments.shape:
        raise ValueError(f"numbers of features differ: {len(a.moments) - 1} and {len(b.moments) - 1}")
    if not (a.moments.isfinite().all() and b.moments.isfinite().all()):
        return math.nan
    # On the CPU: the two may be on different devices, one computed here, one read from storage.
    return gaussian_distance(a.mean.cpu(), _covariance(a), b.mean.cpu(), _covariance(b))


def gaussian_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Return `frechet_distance` for means [D] and covariances [D, D], float64 on the CPU."""
    trace_of_root = _trace_of_root(covariance_a, covariance_b)
    difference = mean_a - mean_b
    return float(difference.square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root)


def _trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """Return tr((S_a S_b)^(1/2)), a scalar.

    With S = F F^T the eigenvalues of S_a S_b are the squared singular values of P = F_a^T F_b, so the trace is the sum
    of the singular values of P. This avoids `sqrtm` of a product, whose eigenvalues near 0 turn negative by rounding.
    With fewer samples than features both F are narrow, and P is small. If both covariances are well conditioned, the
    square roots of the eigenvalues of P P^T give the same in a third of the time.
    """
    allowed = TOLERANCE * (a.trace() + b.trace())
    lower_a, lower_b = _cholesky(a), _cholesky(b)
    product = (_root(a) if lower_a is None else lower_a).T @ (_root(b) if lower_b is None else lower_b)
    if lower_a is not None and lower_b is not None and _pivot_ratio(lower_a) * _pivot_ratio(lower_b) > 1e-10:
        values = torch.linalg.eigvalsh(product @ product.T)
        # Each eigenvalue l has an error up to eps * max(l), so its square root up to eps * max(l) / (2 sqrt(l)).
        if values[0] > 0 and (torch.finfo(values.dtype).eps * values[-1] / (2 * values.sqrt())).sum() < allowed:
            product_roots: Tensor = values.sqrt()
            return product_roots.sum()
    singular_values: Tensor = torch.linalg.svdvals(product)
    return singular_values.sum()


def _covariance(statistics: FeatureMoments) -> Tensor:
    """Return the covariance [D, D] on the CPU; zeros if it is no larger than the rounding error of the moments.

    The features of a generator that has collapsed to one image differ by rounding alone.
    """
    covariance = statistics.covariance.cpu()
    second_moment = float(statistics.moments.abs().max()) / statistics.count
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps * second_moment
    return covariance if float(covariance.abs().max()) > rounding else torch.zeros_like(covariance)


def _cholesky(covariance: Tensor) -> Tensor | None:
    """Return the Cholesky factor L [D, D] with L L^T = covariance; None if it is singular up to rounding."""
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance)
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    return None if failed or _pivot_ratio(lower) < rounding else lower


def _pivot_ratio(lower: Tensor) -> float:
    """Return the smallest over the largest pivot. It is an upper bound of the smallest over the largest eigenvalue."""
    pivots = lower.diagonal().square()
    return float(pivots.min() / pivots.max())


def _root(covariance: Tensor) -> Tensor:
    """Return F [D, R] with F F^T = covariance, by a Cholesky factorisation with pivots in D R^2 operations.

    Row by row, each time of the largest variance that is left (Harbrecht et al. 2012, "On the low-rank approximation by
    the pivoted Cholesky decomposition", algorithm 1). Variances below the rounding error are dropped: a square root
    would turn 1e-16 into 1e-8.
    """
    left = covariance.diagonal().clone()
    rounding = len(left) * torch.finfo(left.dtype).eps * float(left.max())
    rows = torch.empty_like(covariance)
    for rank in range(len(left)):
        pivot = int(left.argmax())
        if left[pivot] <= rounding:
            return rows[:rank].T
        before = rows[:rank]
        rows[rank] = torch.addmv(covariance[pivot], before.T, before[:, pivot], alpha=-1) / left[pivot].sqrt()
        left -= rows[rank].square()
        left[pivot] = 0  # Exactly.
    return rows.T
