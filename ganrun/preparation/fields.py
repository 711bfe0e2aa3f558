"""Reads labels, texts and other fields of a folder's images from a CSV or JSON-lines file."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ganrun.errors import UserError, escaped
from ganrun.preparation.labels import check_largest, in_order, is_number

Members = dict[str, bytes]
"""Members of a sample beside its image, by extension: cls the class number, txt the text, json other fields."""
Rows = dict[str, dict[str, Any]]
"""Fields by name, by path of the image."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = ",;\t"
"""Signs between the cells of a CSV."""


def read_fields(file: Path) -> Rows:
    """Read fields by path of the image.

    A CSV has a header, and the path in its first column. A JSON line has the path under key `file`.

    Raises:
        UserError: no such file, an invalid line, or a duplicate path.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if file.suffix.lower() not in readers:
        raise UserError(f"--fields {file}: unsupported ending; give a .csv or a .jsonl file")
    rows: Rows = {}
    for line, row in readers[file.suffix.lower()](file, read_text(file, f"--fields {file}", "a .csv or a .jsonl file")):
        path = Path(str(row.pop("file"))).as_posix()
        if path in rows:
            raise UserError(f"--fields {file}, line {line}: duplicate path {path!r}; keep one row")
        rows[path] = row
    if not rows:
        raise UserError(f"--fields {file}: no rows; add one per image or leave --fields out")
    return rows


def to_members(rows: Rows) -> tuple[tuple[str, ...], str, dict[str, Members]]:
    """Convert fields to members of samples.

    Field `label` becomes .cls: if all labels are plain integers they stay, otherwise they are names, which are
    numbered in order. Field `text` becomes .txt, a caption a line. All other fields go into one .json.

    Returns:
        Class names, empty without labels; how labels are numbered; and members by path.

    Raises:
        UserError: only some rows have a label, or a label is negative or far larger than the number of labels.
    """
    labels = {path: _label(row) for path, row in rows.items() if _label(row)}
    if labels and len(labels) < len(rows):
        missing = next(path for path in rows if path not in labels)
        raise UserError(f"--fields: {missing!r} has no label; label all rows or none")
    classes, numbering = _classes(set(labels.values()))
    number = {name: str(place).encode() for place, name in enumerate(classes)}
    members: dict[str, Members] = {}
    for path, row in rows.items():
        rest = {key: value for key, value in row.items() if key not in ("label", "text")}
        try:
            members[path] = {
                **({"cls": number[labels[path]]} if labels else {}),
                **({"txt": _text(row["text"]).encode()} if "text" in row else {}),
                **({"json": json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()} if rest else {}),
            }
        except UnicodeEncodeError as error:  # "\ud800" in a JSON line.
            raise UserError(f"--fields: {path!r} has a text with half a character ({error.reason})") from error
    return tuple(map(escaped, classes)), numbering, members


def _text(value: Any) -> str:
    """Return the text of a sample; a list of captions as its lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _label(row: dict[str, Any]) -> str:
    label = row.get("label")
    return "" if label is None else str(label).strip()


def _classes(labels: set[str]) -> tuple[tuple[str, ...], str]:
    """Return class names and how they are numbered: 0 .. max if all labels are integers, else the labels in order.

    A gap between integers is a class without images.
    """
    if not labels or not all(map(is_number, labels)):
        names, order = in_order(labels)
        return names, f"labels are names, in {order} order" if names else ""
    if negative := [label for label in labels if label.startswith("-")]:
        raise UserError(f"--fields: label {min(negative)}; labels are integers from 0, or names")
    longest = max(labels, key=lambda label: (len(label), label))
    largest = int(longest[:20])  # Python refuses to parse thousands of digits.
    check_largest(largest, len(labels), "--fields")
    return tuple(str(number) for number in range(largest + 1)), "labels are class numbers"


def read_text(file: Path, where: str, wanted: str) -> str:
    """Return the text of a file in UTF-8, or in the UTF-16 of spreadsheets.

    Args:
        file: the file.
        where: option and file, for messages.
        wanted: what it should be, for messages.

    Raises:
        UserError: it cannot be read.
    """
    if file.exists() and not file.is_file():  # Reading a pipe may never end.
        raise UserError(f"{where}: not a regular file; give {wanted}")
    try:
        data = file.read_bytes()
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _read_csv(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and fields of each row. Blank rows, and cells without a value or a name, are dropped."""
    begin = 0
    first = text.partition("\n")[0].strip().strip('"')
    if first[:4].lower() == "sep=" and len(first) == 5:  # Excel's first line.
        separator, text, begin = first[4], text.partition("\n")[2], 1
    else:  # Spreadsheets write ; where the comma is the decimal sign.
        separator = next((sign for sign in SEPARATORS if sign in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        _, *names = next(reader, [""])
        names = _header(names, file)
        for cells in reader:
            line = reader.line_num + begin
            if not any(cell.strip() for cell in cells):
                continue
            while len(cells) > len(names) + 1 and not cells[-1].strip():
                cells.pop()
            if len(cells) != len(names) + 1:
                raise UserError(
                    f"--fields {file}, line {line}: {len(cells)} cells, but the header has {len(names) + 1}"
                )
            row = {name: _value(name, cell) for name, cell in zip(names, cells[1:], strict=True) if name}
            if unnamed := [cell for name, cell in zip(names, cells[1:], strict=True) if not name and cell.strip()]:
                raise UserError(
                    f"--fields {file}, line {line}: {unnamed[0]!r} is in a column without a name; name it in the header"
                )
            yield line, {**row, "file": cells[0]}
    except csv.Error as error:
        raise UserError(f"--fields {file}, line {reader.line_num + begin}: not a CSV ({error}); correct it") from error


def _header(names: list[str], file: Path) -> list[str]:
    """Return the names of the columns after the first, without spaces around them and without empty ones at the end.

    Raises:
        UserError: a name occurs twice, or `file` is not the first column.
    """
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    for name in names:
        if name == "file":
            raise UserError(f"--fields {file}: column 'file' is not the first; put the paths into the first column")
        if name and names.count(name) > 1:
            raise UserError(f"--fields {file}: two columns are named {name!r}; rename or delete one")
    return names


def _value(name: str, cell: str) -> Any:
    """Parse a cell as a number if it is one, for numbers in .json. Labels and texts stay strings."""
    text = cell.strip()
    if name in ("label", "text") or len(text) > 100:
        return cell
    if is_number(text):  # 007, 1_000 and +49 are identifiers.
        return int(text)
    if set(text.lower()) <= set("0123456789.e+-") and set(text.lower()) & set(".e"):
        with contextlib.suppress(ValueError):
            return float(text) if math.isfinite(float(text)) else cell  # JSON has no infinity.
    return cell


def _read_json_lines(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"--fields {file}, line {line}: invalid JSON ({reason})") from error
        if not isinstance(row, dict) or "file" not in row:
            raise UserError(f"--fields {file}, line {line}: must be an object with key 'file', the image's path")
        yield line, row
