"""Tells which lines repeat each other, so that a run's page and its description show them once."""

import re


def without_numbers(text: str) -> str:
    """Return a text with a sign in place of each number: lines that agree in this repeat each other."""
    return re.sub(r"\d+(?:[.,\-]\d+)*", "#", text)
