"""Tests over examples that are made up: the same ones each time, and as slow as the machine is."""

from hypothesis import settings


def examples(number):
    """Runs a test on so many examples, none of which is kept for the next time."""
    return settings(max_examples=number, derandomize=True, deadline=None, database=None)
