"""Reports on a run: from its driver to a sidecar, and from the sidecar to the page.

Both are JSON objects with the fields of their class. A sidecar accepts reports from any client that reaches it, so
`parse_report` checks every field. Unknown fields are ignored.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NoReturn

PROTOCOL_VERSION: Final = 1
"""Version of both reports. A sidecar refuses reports of another version, and a page of another asks for a reload."""
Ending = Literal["finished", "stopped", "failed"]
Level = Literal["good", "warning", "bad"]
Sample = tuple[str, Mapping[str, str], float]
"""Name of a series, labels except run and trial, value."""


@dataclass(frozen=True)
class TimedNote:
    """Line for the page."""

    time: float
    """Seconds since the epoch; of a repeated note the last time."""
    text: str
    count: int = 1
    """How often it came; notes that differ only in numbers are one, with the newest text."""
    first_time: float = 0.0
    """The first time in seconds since the epoch; 0 from an older driver, which sends each note by itself."""


@dataclass(frozen=True)
class RunReport:
    """State of a run, a trial or a search that its driver pushes."""

    run: str
    trial: str
    """Name of the trial; empty outside a search and for the search itself."""
    series: Sequence[Sample]
    place: str = ""
    """URI of the run's folder."""
    interval: float = 0.0
    """Seconds between two pushes."""
    ending: str | None = None
    """finished, stopped or failed; None while it runs."""
    notes: Sequence[TimedNote] = ()
    score_name: str = ""
    unsaved: bool = False
    """True if the newest checkpoint could not be written."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Digest of each part (curve, pictures) that the driver has."""


@dataclass(frozen=True)
class Remark:
    """A remark on a run's health."""

    level: Level
    text: str


@dataclass(frozen=True)
class RunSummary:
    """State of a run for the page. A value that the driver has not sent yet is None."""

    run: str
    trial: str
    place: str
    state: str
    """running, silent, finished, stopped or failed."""
    age_seconds: float
    """Seconds since the last push."""
    images: float | None
    target_images: float | None
    images_per_second: float | None
    workers: float | None
    data_wait_ratio: float | None
    round_seconds: float | None
    nonfinite: float | None
    score: float | None
    score_name: str
    trials: Mapping[str, float]
    """Number of trials of a search in each state; empty for a run and for a trial."""
    health: Sequence[Remark]
    """Sorted from bad to good; never empty."""
    notes: Sequence[TimedNote]
    parts: Mapping[str, str]


def to_json(message: Any) -> bytes:
    """Return the JSON of a dataclass above, or of dicts and lists of them."""
    return json.dumps(message, default=vars).encode()


def parse_report(body: bytes) -> RunReport:
    """Parse a pushed report. Samples are not checked: the sidecar drops those that it cannot show.

    Raises:
        ValueError: the body is no report; the message names the field.
        RecursionError: the JSON is nested too deeply.
    """
    found = json.loads(body, parse_constant=_not_json)
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__} in place of an object")
    for name in ("run", "trial", "series"):
        if name not in found:
            raise ValueError(f"{name} is missing")
    content = {each.name: found[each.name] for each in fields(RunReport) if each.name in found}
    for name, value in content.items():
        check, expected = _CHECKS[name]
        if not check(value):
            raise ValueError(f"{name}: {str(value)[:50]!r} is not {expected}")
    names = [each.name for each in fields(TimedNote)]
    notes = [{name: note[name] for name in names if name in note} for note in content.get("notes", ())]
    content["notes"] = [TimedNote(**note) for note in notes]
    return RunReport(**content)


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def is_number(value: Any) -> bool:
    """Return True for a finite JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # An integer beyond the range of a float.
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_note(value: Any) -> bool:
    if not isinstance(value, dict) or not all(is_number(value.get(name, 1)) for name in ("count", "first_time")):
        return False
    return is_number(value.get("time")) and _is_text(value.get("text"))


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run": (_is_text, "text"),
    "trial": (_is_text, "text"),
    "series": (lambda value: isinstance(value, list) and all(isinstance(each, list) for each in value), "lists"),
    "place": (_is_text, "text"),
    "interval": (is_number, "a finite number"),
    "ending": (lambda value: value is None or _is_text(value), "text or null"),
    "notes": (lambda value: isinstance(value, list) and all(map(_is_note, value)), "pairs of time and text"),
    "score_name": (_is_text, "text"),
    "unsaved": (lambda value: isinstance(value, bool), "true or false"),
    "parts": (lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "digests by name"),
}
"""Check of each field of `RunReport`, and the expected value in words."""
