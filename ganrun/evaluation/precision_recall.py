"""Precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al. 2020,
arXiv:2002.09797): fidelity and diversity by nearest neighbours.

The manifold of a set is the union of balls around its members. The radius of a ball is the distance to the k-th nearest
neighbour in the set, not counting the member itself.

Shapes: N real samples, M generated samples, D features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
"""k of the two papers."""
ROUNDING = 1e-13
"""Rounding error of a squared distance, relative to the sum of the squared norms."""
CHUNK_BYTES = 2**27
"""Maximum size of a block of the distance matrix."""


class Neighbourhoods(NamedTuple):
    """Scores in 0..1, except density, which may exceed 1. Higher is better."""

    precision: float
    """Share of generated samples within the real manifold."""
    recall: float
    """Share of real samples within the generated manifold."""
    density: float
    """Mean number of real balls that contain a generated sample, over k."""
    coverage: float
    """Share of real balls that contain a generated sample."""


def neighbourhoods(real: Tensor, fake: Tensor) -> Neighbourhoods:
    """Compute the four scores for features real [N, D] and fake [M, D], in float64 on their device.

    A sample on the surface of a ball is inside it (Kynkäänniemi et al., eq. 1). Distances that differ by rounding alone
    are equal, so duplicates have distance 0.

    Raises:
        ValueError: a set has no more than 5 samples.
    """
    if min(len(real), len(fake)) <= DENSITY_NEIGHBOURS:
        raise ValueError(
            f"{DENSITY_NEIGHBOURS} neighbours need more than {DENSITY_NEIGHBOURS} samples on each side, "
            f"got {len(real)} real and {len(fake)} generated"
        )
    # Centre the features: |x|^2 + |y|^2 - 2 x.y loses precision if norms are large compared with distances.
    centre = real.double().mean(0)
    real, fake = real.double() - centre, fake.double() - centre
    narrow, wide = _radii(real, (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS))
    (fake_radii,) = _radii(fake, (PRECISION_NEIGHBOURS,))
    precise = density = 0.0
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    for chunk, distances, rounding in _distances(fake, real):
        distances -= rounding
        precise += float((distances <= narrow).any(1).sum())
        recalled |= (distances <= fake_radii[chunk, None]).any(0)
        within = distances <= wide
        density += float(within.sum())
        covered |= within.any(0)
    return Neighbourhoods(
        precision=precise / len(fake),
        recall=float(recalled.sum()) / len(real),
        density=density / (DENSITY_NEIGHBOURS * len(fake)),
        coverage=float(covered.sum()) / len(real),
    )


def nearest(real: Tensor, fake: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return the rows of the `count` real samples nearest to each generated one, nearest first, and their distances.

    Returns:
        int64 [M, count], and float64 [M, count]; the distance of a duplicate is 0.
    """
    centre = real.double().mean(0)
    parts = _distances(fake.double() - centre, real.double() - centre)
    found = [distances.topk(count, largest=False) for _, distances, _ in parts]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found]).sqrt()


def _radii(x: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """Return, for each k, squared distances [N] from each member to its k-th nearest neighbour."""
    rows = []
    for _, distances, _ in _distances(x, x):
        # One more than k: a member is its own nearest neighbour, or as near as its duplicates.
        rows.append(distances.topk(max(neighbours) + 1, largest=False, sorted=True).values)
    return [torch.cat(rows)[:, k] for k in neighbours]


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield |x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i.y_j by blocks of rows of x: (rows, distances, rounding error)."""
    norms_x, norms_y = x.square().sum(1), y.square().sum(1)
    size = max(1, CHUNK_BYTES // (8 * len(y)))
    for start in range(0, len(x), size):
        chunk = slice(start, min(start + size, len(x)))
        norms = norms_x[chunk, None] + norms_y
        distances = torch.addmm(norms, x[chunk], y.T, alpha=-2)
        rounding = ROUNDING * norms
        yield chunk, distances.masked_fill_(distances <= rounding, 0), rounding
