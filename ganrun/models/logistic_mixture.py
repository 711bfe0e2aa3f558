"""Mixtures of K discretised logistics over the 256 levels of a number (Salimans et al. 2017, arXiv:1701.05517, eq. 2).

    P(v) = sum_k w_k [sigma((x + 1/255 - m_k) / s_k) - sigma((x - 1/255 - m_k) / s_k)],  x = v / 127.5 - 1,

with minus infinity in place of x - 1/255 for v = 0 and plus infinity in place of x + 1/255 for v = 255, so that the
levels sum to 1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = 1 / 255
"""Half the distance of two levels, in [-1, 1]."""
LEAST_LOG_SCALE = -7.0
"""Lower bound of log s, as in the paper's code: all of the mass is then on one level."""
LEAST = 1e-5
"""Least distance of a uniform number from 0 and 1: logistics have no quantile there."""


def log_prob(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return log P(v) of each number.

    Args:
        x: numbers of 256 levels in [-1, 1], [...].
        logits, means, log_scales: of the components, [..., K].
    """
    return torch.logsumexp(F.log_softmax(logits, dim=-1) + component_log_prob(x[..., None], means, log_scales), dim=-1)


def component_log_prob(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Return log P_k(v) of each component, in the shape that the arguments broadcast to.

    sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)) has no cancellation and no underflow.
    """
    log_scales = log_scales.clamp(min=LEAST_LOG_SCALE)
    inverse = torch.exp(-log_scales)
    centred, half = (x - means) * inverse, HALF * inverse
    above_least, below_greatest = x > -1 + HALF, x < 1 - HALF
    upper = torch.where(below_greatest, F.logsigmoid(centred + half), 0.0)
    lower = torch.where(above_least, F.logsigmoid(half - centred), 0.0)
    inside = torch.where(above_least & below_greatest, torch.log(-torch.expm1(-2 * half)), 0.0)
    return upper + lower + inside


def sample(choice: Tensor, uniform: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Draw numbers of 256 levels in [-1, 1], [...].

    Args:
        choice: U[0, 1) that chooses the component, [...].
        uniform: U[0, 1) that chooses the number, [...].
        logits, means, log_scales: of the components, [..., K].
    """
    component = choose(choice, logits)
    mean, log_scale = (each.gather(-1, component[..., None])[..., 0] for each in (means, log_scales))
    return nearest_level(quantile(uniform, mean, log_scale))


def choose(choice: Tensor, logits: Tensor) -> Tensor:
    """Return the component int64 [...] that U[0, 1) numbers [...] choose, by the cumulative weights."""
    cumulative = F.softmax(logits, dim=-1).cumsum(-1)
    return (choice[..., None] >= cumulative[..., :-1]).sum(-1)


def quantile(uniform: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the quantiles of logistics, unbounded."""
    bounded = uniform.clamp(LEAST, 1 - LEAST)
    return mean + log_scale.clamp(min=LEAST_LOG_SCALE).exp() * (bounded.log() - torch.log1p(-bounded))


def nearest_level(x: Tensor) -> Tensor:
    """Return the nearest of the 256 levels in [-1, 1]."""
    return ((x + 1) / (2 * HALF)).round().clamp(0, 255) * (2 * HALF) - 1
