"""Makes a data set of a table of numbers. A row is a point, a 1x1 image; an empty cell is a missing number."""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.data.columns import Column, Numbers, scaled, to_index
from ganrun.data.index import Index
from ganrun.errors import UserError, counted
from ganrun.evaluation.table_pictures import histograms
from ganrun.preparation.fields import SEPARATORS, read_text
from ganrun.preparation.points import pack_points, point_json
from ganrun.preparation.sources import ORDER_SEED
from ganrun.storage import expand_user

MISSING = ("", "na", "nan")
"""Cells without a number, in lower case."""


@dataclass(frozen=True)
class Table:
    """Table of numbers.

    Attributes:
        where: option and file that it comes from, for messages.
        separator: between its cells.
        header: names of the columns; None: the file has none.
        cells: cells of each row as they are written, without blank rows.
        values: float64 [R, N], NaN where a number is missing.
    """

    where: str
    separator: str
    header: tuple[str, ...] | None
    cells: list[list[str]]
    values: Numbers

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns: those of the header, or else their numbers from 1."""
        return self.header or tuple(str(number) for number in range(1, self.values.shape[1] + 1))

    def with_missing(self, filled: Numbers) -> str:
        """Return the CSV with missing numbers [R, N] put in, to six digits. All other cells stay as they are."""
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter=self.separator, lineterminator="\n")
        writer.writerows([self.header] if self.header else [])
        for cells, numbers in zip(self.cells, filled, strict=True):
            pairs = zip(cells, numbers, strict=True)
            writer.writerow([f"{number:.6g}" if _is_missing(cell) else cell for cell, number in pairs])
        return stream.getvalue()


def read_table(path: str, where: str) -> Table:
    """Read a CSV of numbers, separated by comma, semicolon or tab, with a header or without.

    Empty cells, `NA` and `nan` are missing numbers. The first row is a header if none of its cells is a number.

    Args:
        path: the file.
        where: option and file, for messages.

    Raises:
        UserError: no such file, rows of unlike length, a cell with text, two columns of one name, or no row.
    """
    text = read_text(Path(expand_user(path)), where, "a .csv file")
    separator = next((sign for sign in SEPARATORS if sign in text.partition("\n")[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [(reader.line_num, cells) for cells in reader if len(cells) > 1 or "".join(cells).strip()]
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: not a CSV ({error}); correct it") from error
    header = None
    if rows and {_number(cell) is None for cell in rows[0][1] if not _is_missing(cell)} == {True}:
        header = tuple(cell.strip() for cell in rows.pop(0)[1])
        if twice := [name for name in header if header.count(name) > 1]:
            raise UserError(f"{where}: two columns are named {twice[0]!r}; rename or remove one")
    if not rows:
        raise UserError(f"{where}: no row of numbers; add some")
    width = len(header or rows[0][1])
    values = np.array([_row(cells, line, header, width, where) for line, cells in rows])
    return Table(where, separator, header, [cells for _, cells in rows], values)


def _row(cells: Sequence[str], line: int, header: Sequence[str] | None, width: int, where: str) -> list[float]:
    if len(cells) != width:
        raise UserError(f"{where}, line {line}: {len(cells)} cells, but {width} columns; correct it")
    numbers = [_number(cell) for cell in cells]
    if None in numbers:
        place = numbers.index(None)
        name = repr(header[place]) if header else str(place + 1)
        raise UserError(
            f"{where}, line {line}: {cells[place].strip()[:40]!r} in column {name} is not a number; remove the column, "
            "or leave the cell empty where the number is missing"
        )
    return [number for number in numbers if number is not None]


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _number(cell: str) -> float | None:
    """Return the number of a cell, NaN for a missing one; None for a text."""
    if _is_missing(cell):
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None


def make_table(path: str, dest: str) -> Index:
    """Write a data set of the rows of a CSV, see `read_table`, in random order.

    A sample has a .json, the list of its numbers, each scaled to [0, 1] by the range of its column, null where one is
    missing. The index records the ranges. Rows without any number are left out.

    Raises:
        UserError: see `read_table`; a column has no number, or the destination cannot be written or holds another data
            set.
    """
    table = read_table(path, f"table:{path}")
    known = np.isfinite(table.values)
    if empty := [name for name, column in zip(table.names, known.T, strict=True) if not column.any()]:
        raise UserError(f"{table.where}: column {empty[0]!r} has no number; remove it")
    lows, highs = np.nanmin(table.values, 0).tolist(), np.nanmax(table.values, 0).tolist()
    columns = tuple(map(Column, table.names, lows, highs))
    rows = scaled(table.values, columns)[known.any(1)]
    rows = rows[np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(rows))].astype(np.float32)
    without = int((~known.any(1)).sum())
    made: dict[str, Any] = {
        "source": "table",
        "columns": to_index(columns),
        "missing": int(np.isnan(rows).sum()),
        "order": "shuffled",
        "content": hashlib.sha256(rows.tobytes()).hexdigest(),
    }
    facts = {"left_out": [f"{counted(without, 'row')} without a number"]} if without else {}
    members = [{"json": point_json(row)} for row in rows]
    return pack_points(dest, made, members, rows.shape[1], (), facts, histograms(table.values, table.names))
