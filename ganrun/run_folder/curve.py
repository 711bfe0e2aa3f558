"""Reader of a run's .jsonl files: events, and the metrics of all attempts as one curve."""

import json
import re
from typing import Any

from ganrun.storage import Storage
from ganrun.telemetry.records import EVENT_RECORDS, AttemptStarted, EventRecord, RunFinished, RunStopped, read_record
from ganrun.telemetry.series import LOGIT

Line = dict[str, Any]
METRICS_NAME = re.compile(r"(?P<attempt>\d+)-(?P<start_images>\d+)\.jsonl")
SEARCH_FILE = "search.jsonl"
"""Records of a search, in its folder."""


def read_curve(storage: Storage) -> tuple[list[Line], list[str]]:
    """Return the metrics of all attempts as one curve, and the faults of corrupt lines.

    Lines of earlier attempts beyond the start of a later one are dropped: those images were shown again.
    """
    curve: list[Line] = []
    faults: list[str] = []
    for name in storage.list("metrics"):
        if match := METRICS_NAME.fullmatch(name):
            start = int(match["start_images"])
            # An attempt from 0 images drops everything before it.
            curve = [line for line in curve if start and line["images"] <= start]
            lines = _read_metrics(storage, f"metrics/{name}", faults)
            curve += sorted(lines, key=lambda line: line["images"])  # Scores of tasks arrive late.
    return curve, faults


def read_lines(storage: Storage, name: str) -> list[Line]:
    """Return the intact lines of one file of metrics."""
    return _read_metrics(storage, name, [])


def read_events(storage: Storage) -> tuple[list[EventRecord], list[str]]:
    """Return the events of all attempts in order, and the faults of corrupt lines. Kinds of a newer ganrun are skipped.

    Within a file the order is that of writing, which the clocks of several machines may contradict.
    """
    events: list[EventRecord] = []
    faults: list[str] = []
    for name in storage.list("events"):
        for line in _read(storage, f"events/{name}", {"time", "kind"}, faults):
            try:
                event = read_record(line, EVENT_RECORDS)
            except TypeError:
                faults.append(
                    f"{storage.uri}/events/{name}: a line of kind {line['kind']!r} lacks fields; it is skipped"
                )
            else:
                events += [event] if event else []
    return events, faults


def course_of(events: list[EventRecord]) -> list[AttemptStarted | RunStopped | RunFinished]:
    """Return the events that start, stop or finish training."""
    return [event for event in events if isinstance(event, AttemptStarted | RunStopped | RunFinished)]


def parse_lines(data: bytes, keys: set[str], faults: list[str] | None = None, where: str = "") -> list[Line]:
    """Return the lines that are JSON objects with these keys. A crash may have cut off the last one.

    Args:
        data: content of a .jsonl file.
        keys: required keys.
        faults: receives a message for each corrupt line; None to skip them silently.
        where: file to name in the messages.
    """
    lines = []
    for number, text in enumerate(data.splitlines(), 1):
        try:
            line = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and keys <= line.keys():
            lines.append(line)
        elif faults is not None:
            faults.append(f"{where}: line {number} is corrupt (an interrupted write?) and is skipped")
    return lines


def new_metric_name(name: str) -> str:
    """Return the current name of a metric: older runs call logits `score/real` and `score/fake`."""
    return {f"score/{side}": LOGIT.of(side) for side in ("real", "fake")}.get(name, name)


def _read_metrics(storage: Storage, name: str, faults: list[str]) -> list[Line]:
    lines = _read(storage, name, {"images", "time"}, faults)
    return [{new_metric_name(key): value for key, value in line.items()} for line in lines]


def _read(storage: Storage, name: str, keys: set[str], faults: list[str]) -> list[Line]:
    return parse_lines(storage.read(name), keys, faults, f"{storage.uri}/{name}")


def _no_number(_: str) -> None:
    """Parse NaN and Infinity, which Python writes but JSON lacks, as null."""
