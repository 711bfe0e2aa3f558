"""Mode coverage of generators trained on synthetic mixtures, whose modes are known exactly. Imports no torch.

Shapes: N samples, M modes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganrun.data.index import Index
from ganrun.evaluation.heights import histogram, total_variation

Floats = NDArray[np.floating[Any]]

HIGH_QUALITY = 3.0
"""Radius around a mode, in standard deviations, within which a sample is of high quality."""
INSIDE = 1 - math.exp(-(HIGH_QUALITY**2) / 2)
"""Share of a true mixture in two dimensions that is of high quality: distances are Rayleigh distributed."""
DRAWN = 2_500
"""Maximum number of samples in a picture, as many as Srivastava et al. count modes over."""


class Mixture(NamedTuple):
    """Uniform mixture of M Gaussians in N dimensions, 1 or 2, with covariance sd^2 I."""

    centres: Floats
    """Means of the Gaussians, [M, N]."""
    sd: float
    """Standard deviation of each coordinate; 0: the data is a single point."""
    scale: float
    """Networks see points divided by this, about in [-1, 1]. A power of two, so that the division is exact."""
    offset: float = 0.0
    """Taken off before."""
    axes: tuple[str, str] = ("x", "density")
    """Names of the axes of a histogram, for points of one number."""

    def restored(self, samples: Floats) -> Floats:
        """Return points float64 [B, N] in their own unit, of samples [B, N] or [B, N, 1, 1] as networks see them."""
        return np.asarray(samples, np.float64).reshape(-1, self.centres.shape[1]) * self.scale + self.offset


def _ring() -> Floats:
    angles = np.arange(8) * math.pi / 4
    return 2.0 * np.stack([np.cos(angles), np.sin(angles)], 1)


def _grid() -> Floats:
    steps = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


MIXTURES = {
    # Metz et al. 2017 (arXiv:1611.02163), section 3.1.
    "gaussians:8": Mixture(_ring(), sd=0.02, scale=2.0),
    # Grid of Srivastava et al. 2017 (arXiv:1705.07761), with the spacing and sd of Lin et al. 2018 (arXiv:1712.04086).
    "gaussians:25": Mixture(_grid(), sd=0.05, scale=4.0),
    # Heights in cm of two groups of people, about those of women and men; their sum has two modes.
    "points:heights": Mixture(
        np.array([[162.0], [178.0]]), sd=6.5, scale=8.0, offset=170.0, axes=("height in cm", "density per cm")
    ),
    # Data of games that can be solved by hand, models/known_games.py.
    "points:dirac": Mixture(np.zeros((1, 1)), sd=0.0, scale=1.0),
    "points:gaussian": Mixture(np.zeros((1, 1)), sd=1.0, scale=1.0),
}
"""Mixtures by SOURCE of `ganrun prepare`, which the index of the data records."""


def mixture(kind: str) -> Mixture:
    """Return the mixture of a source such as `gaussians:8`.

    Raises:
        KeyError: no such mixture.
    """
    return MIXTURES[kind]


def known_mixture(index: Index) -> Mixture | None:
    """Return the mixture that a data set was drawn from; None if it was not drawn from one of `MIXTURES`."""
    return MIXTURES.get(index.made.get("source", ""))


def modes(samples: Floats, of: Mixture) -> dict[str, float]:
    """Compare samples with a mixture.

    A sample is of high quality if it is within 3 standard deviations of its nearest mode. A mode is covered if it is
    the nearest of at least one high-quality sample (Srivastava et al. 2017, arXiv:1705.07761). Samples that are not
    finite count as low quality and have no mode.

    Args:
        samples: points [B, N] or [B, N, 1, 1] as networks see them, divided by the mixture's scale.
        of: the true mixture.

    Returns:
        `mode_distance`: total variation sum_m |q_m - p_m| / 2 between the shares of samples q and of the mixture p in
        the circles of the M modes and outside all of them; 0..1, lower is better. Of points of one number, whose
        groups overlap, `heights.total_variation`.
        `modes_covered`: 0..M.
        `high_quality_share`: 0..1.
        `mode_kl`: see there; over the nearest modes of all samples.
    """
    points = of.restored(samples)
    distances = np.linalg.norm(points[:, None] - of.centres, axis=2)  # [N, M]
    nearest, finite = distances.argmin(1), np.isfinite(points).all(1)
    good = finite & (distances.min(1) <= HIGH_QUALITY * of.sd)
    count = len(of.centres)
    inside, share = np.bincount(nearest[good], minlength=count) / len(points), float(good.mean())
    return {
        "mode_distance": total_variation(points[:, 0], of.centres, of.sd)
        if points.shape[1] == 1
        else float(np.abs(inside - INSIDE / count).sum() + abs(share - INSIDE)) / 2,
        "modes_covered": int((inside > 0).sum()),
        "high_quality_share": share,
        "mode_kl": mode_kl(np.bincount(nearest[finite], minlength=count)),
    }


def label_modes(counts: NDArray[np.integer[Any]]) -> dict[str, float]:
    """Return mode coverage if modes are labels, such as those of stacked images by a classifier.

    A mode is covered if any sample has its label (Metz et al. 2017, arXiv:1611.02163).

    Args:
        counts: number of samples with each label, [M].

    Returns:
        `modes_covered` and `mode_kl`.
    """
    return {"modes_covered": int((counts > 0).sum()), "mode_kl": mode_kl(counts)}


def mode_kl(counts: NDArray[np.integer[Any]]) -> float:
    """Return KL(generated || data) = sum_m q_m ln(q_m M) in nats, q_m the share of mode m and 1 / M that in the data.

    0: all modes equally frequent; ln M: a single mode; NaN: no samples.
    """
    total = counts.sum()
    if not total:
        return math.nan
    shares = counts[counts > 0] / total
    return float((shares * np.log(shares * len(counts))).sum())


def picture(
    samples: Floats,
    of: Mixture,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    density: Callable[[Floats], Floats] | None = None,
) -> bytes:
    """Plot samples as a PNG: of one number as a histogram, others over circles of 3 standard deviations of the modes.

    Samples outside all circles have another colour; samples outside the frame are counted in the title.

    Args:
        samples: points [B, N] or [B, N, 1, 1] divided by the mixture's scale; in two dimensions the first 2,500 are
            drawn.
        of: the true mixture.
        title: title of the plot.
        facts: provenance, stored as text chunks of the PNG.
        density: density of the model at points [B, N] as networks see them, if it has one; drawn beside a histogram.
    """
    if of.centres.shape[1] == 1:

        def by_height(x: Floats) -> Floats:
            assert density is not None
            return density((x[:, None] - of.offset) / of.scale) / of.scale

        points = of.restored(samples)[:, 0]
        return histogram(points, of.centres, of.sd, title or "samples", density and by_height, facts, of.axes)
    return _over_circles(of.restored(samples)[:DRAWN], of, title, facts)


def _over_circles(points: Floats, of: Mixture, title: str, facts: Mapping[str, str] | None) -> bytes:
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure

    from ganrun.telemetry.palette import COLOURS, figure_png

    good = np.linalg.norm(points[:, None] - of.centres, axis=2).min(1) <= HIGH_QUALITY * of.sd
    reach = 1.4 * float(np.abs(of.centres).max())
    hidden = int((~(np.abs(points) <= reach).all(1)).sum())
    figure = Figure(figsize=(7, 7), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    width = np.full(len(of.centres), 2 * HIGH_QUALITY * of.sd)
    circles = EllipseCollection(
        width, width, np.zeros_like(width), units="xy", offsets=of.centres, transOffset=axes.transData
    )
    circles.set(facecolor="#E5E5E5", edgecolor="#999999", linewidth=0.8)
    axes.add_collection(circles)
    for those, colour, where in ((good, COLOURS[0], "in a mode"), (~good, COLOURS[1], "in none")):
        x, y = points[those].T
        axes.scatter(x, y, s=5, linewidths=0, alpha=0.6, color=colour, label=f"{those.sum():,} {where}")
    outside = f", {hidden:,} of them outside the frame" if hidden else ""
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_title(f"{title}{': ' if title else ''}{len(points):,} samples{outside}", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=10, loc="upper right", markerscale=3)
    return figure_png(figure, facts)
