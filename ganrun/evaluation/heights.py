"""Comparison of samples of one number, such as heights of people, with the mixture that they should follow.

Groups of heights overlap, so their modes cannot be counted as those of `modes.py`; shares of bins are compared instead.
Imports no torch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
BIN = 0.25
"""Width of a bin, in standard deviations of a group."""
REACH = 5.0
"""Bins end so many standard deviations beyond the outermost means; two more are open to the outside."""


def edges_of(centres: Floats, sd: float) -> Floats:
    """Return the edges of the bins, ascending."""
    lowest, highest = float(centres.min()) - REACH * sd, float(centres.max()) + REACH * sd
    return np.linspace(lowest, highest, math.ceil((highest - lowest) / (BIN * sd)) + 1)


def shares_of(edges: Floats, centres: Floats, sd: float) -> Floats:
    """Return the share of a mixture of equal weights in each bin, the open ones first and last."""
    below = [[0.5 * math.erfc((mean - edge) / (sd * math.sqrt(2))) for mean in centres.flat] for edge in edges]
    return np.diff([0.0, *np.mean(below, axis=1), 1.0])


def total_variation(points: Floats, centres: Floats, sd: float) -> float:
    """Return sum_b |q_b - p_b| / 2 between the shares of points and of the mixture in bins b; 0..1, lower is better.

    Of N points of the mixture itself it is about the root of (number of bins) / (2 pi N). Points that are not finite
    count as a bin of their own.

    Args:
        points: [N].
        centres: means of the groups, [M, 1].
        sd: their standard deviation.
    """
    if not sd:
        return float(np.mean(points != centres[0, 0]))  # A single point, which NaN is not either.
    edges = edges_of(centres, sd)
    bins = np.searchsorted(edges, points[np.isfinite(points)], side="right")
    found = np.bincount(bins, minlength=len(edges) + 1) / len(points)
    return float(np.abs(found - shares_of(edges, centres, sd)).sum() + np.mean(~np.isfinite(points))) / 2


def histogram(
    points: Floats,
    centres: Floats,
    sd: float,
    title: str,
    density: Callable[[Floats], Floats] | None = None,
    facts: Mapping[str, str] | None = None,
    axes_of: tuple[str, str] = ("x", "density"),
) -> bytes:
    """Plot a histogram of points under the density of their mixture, and of the model, as a PNG of 900x560 pixels.

    Args:
        points: [N].
        centres, sd: see `total_variation`.
        title: title of the plot.
        density: density of the model at points [M], if it has one.
        facts: provenance, stored as text chunks of the PNG.
        axes_of: names of the axes.
    """
    from matplotlib.figure import Figure

    from ganrun.telemetry.palette import COLOURS, figure_png

    edges = edges_of(centres, sd or BIN)
    x = np.linspace(edges[0], edges[-1], 400)
    inside = points[(points >= edges[0]) & (points <= edges[-1])]
    hidden = len(points) - len(inside)
    figure = Figure(figsize=(9, 5.6), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    weights = np.full(len(inside), 1 / (len(points) * (edges[1] - edges[0])))
    axes.hist(inside, bins=list(edges), weights=weights, color="#D5D5D5", label=f"{len(points):,} samples")
    if sd:
        true = np.exp(-0.5 * ((x[:, None] - centres[:, 0]) / sd) ** 2).mean(1) / (sd * math.sqrt(2 * math.pi))
        axes.plot(x, true, color=COLOURS[0], linewidth=2, label="density of the data")
    else:
        axes.axvline(centres[0, 0], color=COLOURS[0], linewidth=2, label="the data, a single point")
    if density is not None:
        axes.plot(x, density(x), color=COLOURS[1], linewidth=2, linestyle="--", label="density of the model")
    outside = f", {hidden:,} of them outside the frame" if hidden else ""
    axes.set_title(f"{title}: {len(points):,} samples{outside}", fontsize=11, loc="left")
    axes.set(xlim=(edges[0], edges[-1]), xlabel=axes_of[0], ylabel=axes_of[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=10)
    return figure_png(figure, facts)
