"""Reads labels, texts and other fields of a folder's images from a CSV or JSON-lines file."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ganrun.errors import UserError

Members = dict[str, bytes]
"""Members of a sample beside its image, by extension: cls the class number, txt the text, json other fields."""
Rows = dict[str, dict[str, Any]]
"""Fields by name, by path of the image."""


def read_fields(file: Path) -> Rows:
    """Read fields by path of the image.

    A CSV has a header, and the path in its first column. A JSON line has the path under key `file`.

    Raises:
        UserError: no such file, an invalid line, or a duplicate path.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if file.suffix not in readers:
        raise UserError(f"--fields {file}: unsupported ending; give a .csv or a .jsonl file")
    rows: Rows = {}
    try:
        for line, row in readers[file.suffix](file):
            path = Path(str(row.pop("file"))).as_posix()
            if path in rows:
                raise UserError(f"--fields {file}, line {line}: duplicate path {path!r}; keep one row")
            rows[path] = row
    except OSError as error:
        raise UserError(f"--fields {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--fields {file}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if not rows:
        raise UserError(f"--fields {file}: no rows; add one per image or leave --fields out")
    return rows


def to_members(rows: Rows) -> tuple[tuple[str, ...], dict[str, Members]]:
    """Convert fields to members of samples.

    Field `label` becomes .cls: integers stay, names are numbered in sorted order. Field `text` becomes .txt. All other
    fields go into one .json.

    Returns:
        Class names, empty without labels, and members by path.

    Raises:
        UserError: only some rows have a label, or a label is negative or far larger than the number of labels.
    """
    labels = {path: str(row["label"]) for path, row in rows.items() if row.get("label") not in (None, "")}
    if labels and len(labels) < len(rows):
        missing = next(path for path in rows if path not in labels)
        raise UserError(f"--fields: {missing!r} has no label; label all rows or none")
    classes = _classes(set(labels.values()))
    number = {name: str(place).encode() for place, name in enumerate(classes)}
    members: dict[str, Members] = {}
    for path, row in rows.items():
        rest = {key: value for key, value in row.items() if key not in ("label", "text")}
        members[path] = {
            **({"cls": number[labels[path]]} if labels else {}),
            **({"txt": str(row["text"]).encode()} if "text" in row else {}),
            **({"json": json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()} if rest else {}),
        }
    return classes, members


def _classes(labels: set[str]) -> tuple[str, ...]:
    """Return class names: 0 .. max if all labels are integers (a gap is a class without images), else sorted labels."""
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        return tuple(sorted(labels))
    if numbers and min(numbers) < 0:
        raise UserError(f"--fields: label {min(numbers)}; labels are integers from 0, or names")
    if numbers and max(numbers) > 100 * len(numbers) + 1000:
        raise UserError(f"--fields: label {max(numbers)}, but only {len(numbers)} labels; number classes from 0 up")
    return tuple(str(number) for number in range(max(numbers, default=-1) + 1))


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        _, *names = next(reader, [""])
        for cells in reader:
            if len(cells) != len(names) + 1:
                raise UserError(
                    f"--fields {file}, line {reader.line_num}: {len(cells)} cells, but the header has {len(names) + 1}"
                )
            row = {name: _value(name, cell) for name, cell in zip(names, cells[1:], strict=True)}
            yield reader.line_num, {**row, "file": cells[0]}


def _value(name: str, cell: str) -> Any:
    """Parse a cell as a number if it is one, for numbers in .json. Labels and texts stay strings."""
    if name not in ("label", "text"):
        for kind in (int, float):
            try:
                number = kind(cell)
            except ValueError:
                continue
            # 007 is an identifier, and JSON has no NaN.
            if math.isfinite(number) and not (cell.startswith("0") and cell.isdigit() and len(cell) > 1):
                return number
    return cell


def _read_json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8") as stream:
        for line, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"--fields {file}, line {line}: invalid JSON ({error.msg})") from error
            if not isinstance(row, dict) or "file" not in row:
                raise UserError(f"--fields {file}, line {line}: must be an object with key 'file', the image's path")
            yield line, row
