"""The colours of what is drawn."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"""Okabe & Ito (2008): told apart by those who see colours otherwise, and in grey."""
