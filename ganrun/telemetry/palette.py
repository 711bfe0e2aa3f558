"""Colours of plots, and plots as PNGs."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # It takes half a second to import.
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"""Palette of Okabe & Ito (2008): distinct under colour blindness and in greyscale."""


def figure_png(figure: "Figure", facts: Mapping[str, str] | None = None) -> bytes:
    """Return a figure as a PNG, with facts as its text chunks."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata=dict(facts or {}))
    return stream.getvalue()
