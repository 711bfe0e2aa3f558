"""How much of a mixture whose modes are known a generator covers: the known answers.

Shapes: N samples, M modes. Loads no torch.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganrun.data.index import Index

Floats = NDArray[np.floating[Any]]

HIGH_QUALITY = 3.0
"""Standard deviations from its nearest mode within which a sample is of high quality."""
INSIDE = 1 - math.exp(-(HIGH_QUALITY**2) / 2)
"""The share of the mixture itself that is: a distance from its mode is Rayleigh's."""
DRAWN = 2_500
"""Samples in a picture at most; as many as Srivastava et al. count modes over."""


class Mixture(NamedTuple):
    """Equal parts of M Gaussians of two dimensions with the covariance sd^2 I."""

    centres: Floats
    """[M, 2]."""
    sd: float
    """Of each coordinate."""
    scale: float
    """What networks see is a point divided by this: about [-1, 1]. A power of two, so that no bit is lost."""


def _ring() -> Floats:
    angles = np.arange(8) * math.pi / 4
    return 2.0 * np.stack([np.cos(angles), np.sin(angles)], 1)


def _grid() -> Floats:
    steps = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


MIXTURES = {
    # Metz et al. 2017 (arXiv:1611.02163), section 3.1.
    "gaussians:8": Mixture(_ring(), sd=0.02, scale=2.0),
    # As Srivastava et al. 2017 (arXiv:1705.07761) have it, with the numbers of Lin et al. 2018 (arXiv:1712.04086).
    "gaussians:25": Mixture(_grid(), sd=0.05, scale=4.0),
}
"""By the source that `ganrun prepare` makes it of, which its index names."""


def mixture(kind: str) -> Mixture:
    """The mixture of a source such as `gaussians:8`.

    Raises:
        KeyError: there is none of that name.
    """
    return MIXTURES[kind]


def known_mixture(index: Index) -> Mixture | None:
    """That which the points of a data set are drawn from; None if they are no points, or other ones."""
    return MIXTURES.get(index.made.get("source", ""))


def modes(samples: Floats, of: Mixture) -> dict[str, float]:
    """Modes covered, share of high quality, the divergence of the modes' shares, and one distance of it all.

    A sample is of high quality if it is within three standard deviations of the nearest mode, and a mode is
    covered if it is the nearest of at least one such sample (Srivastava et al. 2017, arXiv:1705.07761). The
    divergence is over the nearest modes of all samples. The distance, which has both, is the total variation from the
    mixture of where samples are, in the circle of which mode or in none: sum_m |q_m - p_m| / 2. Samples that are not
    finite are of no quality and no mode.

    Args:
        samples: [N, 2] (or [N, 2, 1, 1]) as networks see them, divided by the mixture's scale.
        of: what the samples should be from.

    Returns:
        `mode_distance` in 0..1 (lower is better), `modes_covered`, `high_quality_share` in 0..1 and `mode_kl` (see
        there).
    """
    points = np.asarray(samples, np.float64).reshape(-1, 2) * of.scale
    distances = np.linalg.norm(points[:, None] - of.centres, axis=2)  # [N, M]
    nearest, finite = distances.argmin(1), np.isfinite(points).all(1)
    good = finite & (distances.min(1) <= HIGH_QUALITY * of.sd)
    count = len(of.centres)
    inside, share = np.bincount(nearest[good], minlength=count) / len(points), float(good.mean())
    return {
        "mode_distance": float(np.abs(inside - INSIDE / count).sum() + abs(share - INSIDE)) / 2,
        "modes_covered": int((inside > 0).sum()),
        "high_quality_share": share,
        "mode_kl": mode_kl(np.bincount(nearest[finite], minlength=count)),
    }


def label_modes(counts: NDArray[np.integer[Any]]) -> dict[str, float]:
    """The same where each sample's mode is a label, such as a classifier's of stacked images (Metz et al. 2017,
    arXiv:1611.02163): a mode is covered if any sample has its label.

    Args:
        counts: [M], samples of each label.

    Returns:
        `modes_covered` and `mode_kl`.
    """
    return {"modes_covered": int((counts > 0).sum()), "mode_kl": mode_kl(counts)}


def mode_kl(counts: NDArray[np.integer[Any]]) -> float:
    """KL(generated || data) = sum_m q_m ln(q_m M), where q are the modes' shares and the data's are all 1 / M.

    From 0, all modes alike, to ln M, one mode alone; in nats. NaN without a sample.
    """
    total = counts.sum()
    if not total:
        return math.nan
    shares = counts[counts > 0] / total
    return float((shares * np.log(shares * len(counts))).sum())


def picture(samples: Floats, of: Mixture, title: str = "", facts: Mapping[str, str] | None = None) -> bytes:
    """A PNG of 700 by 700 pixels: the samples over circles of three standard deviations around the modes.

    Those that are of no mode's circle are in another colour; those far outside are not shown, but counted. `facts`
    are kept in the file as its text: where the picture comes from.
    """
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure

    from ganrun.telemetry.palette import COLOURS

    points = np.asarray(samples, np.float64).reshape(-1, 2)[:DRAWN] * of.scale
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
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata=dict(facts or {}))
    return stream.getvalue()
