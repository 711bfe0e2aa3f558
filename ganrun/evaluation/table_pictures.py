"""Pictures of tables for people, as PNGs: filled numbers beside the true ones, histograms of columns."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ganrun.telemetry.palette import COLOURS, figure_png

Floats = NDArray[np.floating[Any]]

DRAWN = 5_000
"""Maximum number of filled numbers in a picture."""
COLUMNS, ACROSS = 64, 8
"""Most histograms of a picture, and those of a row."""


def filled_picture(filled: Tensor, truth: Tensor, mask: Tensor, facts: Mapping[str, str]) -> bytes:
    """Plot the missing numbers of points as filled over what they are in truth, and the diagonal where both agree.

    Args:
        filled, truth, mask: [B, N, 1, 1]; truth may be NaN, mask is 1 where a number was missing.
        facts: provenance, stored as text chunks of the PNG.
    """
    from matplotlib.figure import Figure

    shown = (mask > 0) & truth.isfinite()
    found, true = (each[shown].double().cpu().numpy() for each in (filled, truth))
    error = math.sqrt(((found - true) ** 2).mean()) if len(true) else math.nan
    figure = Figure(figsize=(7, 7), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    axes.scatter(true[:DRAWN], found[:DRAWN], s=6, linewidths=0, alpha=0.4, color=COLOURS[0])
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal", xlabel="true number", ylabel="filled in")
    axes.set_title(f"{len(true):,} missing numbers, scaled: RMSE {error:.3f}", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure, facts)


def histograms(values: Floats, names: Sequence[str]) -> bytes:
    """Plot a histogram of the known numbers of each of the first 64 columns of a table [R, N]."""
    from matplotlib.figure import Figure

    shown = list(enumerate(names[:COLUMNS]))
    rows = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(2 * min(len(shown), ACROSS), 1.6 * rows), dpi=100, layout="constrained", facecolor="white")
    for place, (number, name) in enumerate(shown, 1):
        axes = figure.add_subplot(rows, min(len(shown), ACROSS), place)
        column = values[:, number]
        axes.hist(column[np.isfinite(column)], bins=20, color=COLOURS[0])
        axes.set_title(name[:20].replace("$", r"\$"), fontsize=8)
        axes.tick_params(labelsize=6)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure_png(figure)
