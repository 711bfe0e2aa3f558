"""Colours of curves."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"""Palette of Okabe & Ito (2008): distinct under colour blindness and in greyscale."""
