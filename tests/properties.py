"""Settings of property-based tests: deterministic examples and no deadline."""

from hypothesis import settings


def examples(number):
    """Run a test on so many examples, without a database of failures."""
    return settings(max_examples=number, derandomize=True, deadline=None, database=None)
