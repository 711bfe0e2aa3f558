"""Columns of a table as the index of its data records them: networks see each scaled to [0, 1].

Shapes: R rows, N columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganrun.data.index import Index

Numbers = NDArray[np.float64]


class Column(NamedTuple):
    """Column of a table, and the range of its known numbers."""

    name: str
    low: float
    high: float


def columns_of(index: Index) -> tuple[Column, ...]:
    """Return the columns of a data set; none if it was not made of a table."""
    return tuple(Column(each["name"], each["low"], each["high"]) for each in index.made.get("columns", ()))


def to_index(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return columns as the index records them."""
    return [column._asdict() for column in columns]


def scaled(values: Numbers, columns: Sequence[Column]) -> Numbers:
    """Return numbers [R, N] in [0, 1] for those between low and high; 0 in a column of one number. NaN stays."""
    low, span = _low_and_span(columns)
    found: Numbers = (values - low) / span
    return found


def restored(values: Numbers, columns: Sequence[Column]) -> Numbers:
    """Return scaled numbers [R, N] in their own units."""
    low, span = _low_and_span(columns)
    found: Numbers = values * span + low
    return found


def _low_and_span(columns: Sequence[Column]) -> tuple[Numbers, Numbers]:
    low = np.array([column.low for column in columns])
    span = np.array([column.high - column.low or 1.0 for column in columns])
    return low, span
