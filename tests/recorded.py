"""Compares output and numbers of ganrun with recordings in tests/data/golden, or records them again."""

import contextlib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ganrun.__main__ import main

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/data/golden"
RECORD = "RECORD_GOLDEN"
"""The environment variable under which the tests write their recordings in place of comparing with them."""

RENAMED = {"logit/": "score/", "_ema": "_average"}
"""Parts of keys of metrics and of names of files: as ganrun has them now -> as they are recorded."""


def ganrun(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process with 100 columns; return exit code, stdout and stderr."""
    output, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):  # Commands that train take these over.
            stack.callback(signal.signal, number, signal.getsignal(number))
        stack.enter_context(patch.dict(os.environ, COLUMNS="100"))
        stack.enter_context(patch.object(sys, "argv", ["ganrun", *map(str, arguments)]))
        stack.enter_context(patch.object(sys, "path", [*sys.path]))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(error))
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, output.getvalue(), error.getvalue()


def said(*arguments: object) -> str:
    """Return stdout of a command that must succeed."""
    code, output, error = ganrun(*arguments)
    assert code == 0, error
    return output


def expect_text(name: str, text: str) -> None:
    """Compare with a recorded text, character by character."""
    path = GOLDEN / name
    if os.environ.get(RECORD):
        _write(path, text)
    assert text == path.read_text(encoding="utf-8"), f"{path.relative_to(ROOT)} is not what is said now"


def expect_json(name: str, value: Any) -> None:
    """Compare with recorded JSON, exactly."""
    expect_text(name, _dumped(value))


def expect_numbers(name: str, value: Any, relative: float, absolute: float = 0.0) -> None:
    """Compare with recorded JSON: equal keys and strings, and numbers within a tolerance."""
    path = GOLDEN / name
    if os.environ.get(RECORD):
        _write(path, _dumped(value))
    found, expected = leaves(value), leaves(json.loads(path.read_text(encoding="utf-8")))
    assert found.keys() == expected.keys()
    wrong = {
        key: (number, expected[key])
        for key, number in found.items()
        if not _alike(number, expected[key], relative, absolute)
    }
    first = dict(list(wrong.items())[:5])
    assert not wrong, f"{len(wrong)} of {len(found)} differ from {path.relative_to(ROOT)}; (now, recorded): {first}"


def _alike(now: Any, then: Any, relative: float, absolute: float) -> bool:
    if isinstance(now, bool) or not isinstance(now, int | float) or not isinstance(then, int | float):
        return bool(now == then)
    return bool(now == pytest.approx(then, rel=relative, abs=absolute, nan_ok=True))


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Return all leaf values of JSON by their path of keys."""
    if not isinstance(value, Mapping | list | tuple):
        return {where: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = {key: leaf for name, each in items for key, leaf in leaves(each, f"{where}[{name}]").items()}
    return found or {where: type(value).__name__}


def recorded(name: str) -> str:
    """Return the name in the recordings for a current key or name."""
    for now, then in RENAMED.items():
        name = name.replace(now, then)
    return name


def shape(value: Any) -> Any:
    """Return the keys of a JSON value and the types of its values, recursively; the items of a list are merged."""
    if isinstance(value, Mapping):
        return {recorded(key): shape(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return _together([shape(each) for each in value])
    return "null" if value is None else type(value).__name__


def _together(shapes: list[Any]) -> list[Any]:
    """Merge objects to one with the keys of all; return the distinct shapes of other values."""
    if shapes and all(isinstance(each, dict) for each in shapes):
        keys = sorted({key for each in shapes for key in each})
        merged = {key: _together([each[key] for each in shapes if key in each]) for key in keys}
        return [{key: found[0] if len(found) == 1 else found for key, found in merged.items()}]
    return [json.loads(each) for each in sorted({json.dumps(each, sort_keys=True) for each in shapes})]


def masked(text: str, *places: Path) -> str:
    """Mask what differs from run to run: paths, times of day, durations."""
    for place in places:
        text = text.replace(str(place), "PLACE")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\(\d+ (s|min|h|days) ago", "(SPAN ago", text)
    return re.sub(r" +\d+ (s|min|h|days) ago", " SPAN ago", text)


def _dumped(value: Any) -> str:
    """Format JSON for diffs: a line per item of a list, else a line per value."""
    if not isinstance(value, list):
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    items = ",\n".join(json.dumps(each, ensure_ascii=False) for each in value)
    return f"[\n{items}\n]\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
