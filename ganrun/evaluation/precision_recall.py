"""How much of the generated is like the data, and how much of the data is reached, by nearest neighbours.

Precision and recall: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991.
Density and coverage: Naeem et al. 2020, https://arxiv.org/abs/2002.09797.

A set's manifold is the union of balls around its members, each as wide as the distance to the member's k-th
nearest neighbour in the set, itself not counted. N: real samples, M: generated ones, D: features an image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
"""k of the two papers."""
ROUNDING = 1e-13
"""Of a squared distance, as a share of the squared norms that it is the difference of."""
CHUNK_BYTES = 2**27


class Neighbourhoods(NamedTuple):
    """Shares in 0..1, but for density, which may be above 1; higher is better."""

    precision: float
    """Generated samples within the real manifold."""
    recall: float
    """Real samples within the generated manifold."""
    density: float
    """Real balls around a generated sample, over k."""
    coverage: float
    """Real balls with a generated sample in them."""


def neighbourhoods(real: Tensor, fake: Tensor) -> Neighbourhoods:
    """The four scores of features [N, D] and [M, D], computed in float64 on their device.

    Distances are taken a chunk of rows at a time. Equal distances count as within, as the first paper has it
    (eq. 1), and distances that differ by rounding alone are equal: duplicates are at distance 0.

    Raises:
        ValueError: a set has too few samples for k neighbours.
    """
    if min(len(real), len(fake)) <= DENSITY_NEIGHBOURS:
        raise ValueError(f"{DENSITY_NEIGHBOURS} neighbours need more samples than {len(real)} real, {len(fake)} others")
    # Distances from the mean, so that little is lost in the difference of large norms.
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


def nearest(real: Tensor, fake: Tensor) -> Tensor:
    """The number of the real sample nearest to each generated one, int64 [M]."""
    centre = real.double().mean(0)
    parts = _distances(fake.double() - centre, real.double() - centre)
    return torch.cat([distances.argmin(1) for _, distances, _ in parts])


def _radii(x: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """Squared distances [N] of each member to its k-th nearest other, for each k."""
    rows = []
    for _, distances, _ in _distances(x, x):
        # Itself is nearest, or as near as a duplicate.
        rows.append(distances.topk(max(neighbours) + 1, largest=False, sorted=True).values)
    return [torch.cat(rows)[:, k] for k in neighbours]


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """|x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i.y_j in chunks of rows: which rows, distances, and their rounding."""
    norms_x, norms_y = x.square().sum(1), y.square().sum(1)
    size = max(1, CHUNK_BYTES // (8 * len(y)))
    for start in range(0, len(x), size):
        chunk = slice(start, min(start + size, len(x)))
        norms = norms_x[chunk, None] + norms_y
        distances = torch.addmm(norms, x[chunk], y.T, alpha=-2)
        rounding = ROUNDING * norms
        yield chunk, distances.masked_fill_(distances <= rounding, 0), rounding
