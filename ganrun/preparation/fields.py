"""Further fields of a folder's images, from a CSV or JSON-lines file: labels, texts and anything else."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ganrun.errors import UserError

Members = dict[str, bytes]
"""What a sample holds beside its image, by extension: cls a class number, txt a text, json the rest."""
Rows = dict[str, dict[str, Any]]
"""Image path -> its fields by name."""


def read_fields(file: Path) -> Rows:
    """Image path -> its fields. A CSV has a header and the path in its first column; a JSON line has the
    path under `file`.

    Raises:
        UserError: no such file, a line that cannot be read, or a path that comes twice.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if file.suffix not in readers:
        raise UserError(f"--fields {file}: allowed are a .csv or a .jsonl file")
    rows: Rows = {}
    try:
        for line, row in readers[file.suffix](file):
            path = Path(str(row.pop("file"))).as_posix()
            if path in rows:
                raise UserError(f"--fields {file}, line {line}: {path!r} comes a second time; keep one row")
            rows[path] = row
    except OSError as error:
        raise UserError(f"--fields {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--fields {file}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if not rows:
        raise UserError(f"--fields {file}: holds no rows")
    return rows


def to_members(rows: Rows) -> tuple[tuple[str, ...], dict[str, Members]]:
    """Class names (none without a field `label`) and each path's members.

    `label` becomes .cls (numbers as they are, names numbered in sorted order), `text` becomes .txt, all other
    fields together .json.

    Raises:
        UserError: only some rows have a label, or a label is a negative number.
    """
    labels = {path: str(row["label"]) for path, row in rows.items() if row.get("label") not in (None, "")}
    if labels and len(labels) < len(rows):
        missing = next(path for path in rows if path not in labels)
        raise UserError(f"--fields: {missing!r} has no label; give every row one, or none")
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
    """Whole numbers stay what they are, so that gaps are classes without images; names are sorted."""
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        return tuple(sorted(labels))
    if numbers and min(numbers) < 0:
        raise UserError(f"--fields: label {min(numbers)}; allowed are numbers from 0, or names")
    if numbers and max(numbers) > 100 * len(numbers) + 1000:
        raise UserError(f"--fields: label {max(numbers)} of {len(numbers)} labels; number classes from 0")
    return tuple(str(number) for number in range(max(numbers, default=-1) + 1))


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        _, *names = next(reader, [""])
        for cells in reader:
            if len(cells) != len(names) + 1:
                raise UserError(
                    f"--fields {file}, line {reader.line_num}: {len(cells)} cells, the header has {len(names) + 1}"
                )
            row = {name: _value(name, cell) for name, cell in zip(names, cells[1:], strict=True)}
            yield reader.line_num, {**row, "file": cells[0]}


def _value(name: str, cell: str) -> Any:
    """A number where the cell is one, so that .json carries numbers; labels and texts stay as written."""
    if name not in ("label", "text"):
        for kind in (int, float):
            try:
                number = kind(cell)
            except ValueError:
                continue
            # 007 is a name, and JSON knows no NaN.
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
                raise UserError(f"--fields {file}, line {line}: no JSON ({error.msg})") from error
            if not isinstance(row, dict) or "file" not in row:
                raise UserError(f"--fields {file}, line {line}: an object with a key 'file' is needed")
            yield line, row
