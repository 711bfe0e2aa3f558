"""Runs that a sidecar knows, with limits on what drivers push.

A run is running while it pushes, silent after several missed pushes, and ended once a push says so. Its series stay
in /metrics for EXPIRE_SECONDS after the last push, the run stays on the page for KEEP_SECONDS. Clients are not
trusted: names, labels, numbers of runs and series, and bytes are limited.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ganrun.telemetry.http_server import RefusedError
from ganrun.telemetry.protocol import PART_BYTES, PARTS
from ganrun.telemetry.run_report import TimedNote, is_number, parse_report
from ganrun.telemetry.series import BY_NAME, UP, Series

SILENT_SECONDS, MISSED = 15.0, 4
"""A run is silent after SILENT_SECONDS without a push, or MISSED intervals if that is longer."""
EXPIRE_SECONDS, KEEP_SECONDS = 900.0, 7 * 86_400.0
RUNS, SAMPLES, LABEL_CHARACTERS, TEXT_CHARACTERS, NOTES = 100, 4_000, 100, 500, 20
"""Limits: runs; samples of a run (two per rank of 1,900 ranks, and others); characters of a label, of a text; notes."""
ALL_PARTS_BYTES = 64 * 2**20
"""Limit of the parts of all runs."""
RUN_NAME, TRIAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"), re.compile(r"[A-Za-z0-9._-]{0,100}")
ENDINGS = ("finished", "stopped", "failed")
Sample = tuple[Series, tuple[str, ...], float]
"""Series, values of its labels besides COMMON, value."""


@dataclass
class Run:
    """Newest state of a run, pushed by its driver."""

    name: str
    trial: str
    place: str
    interval: float
    ending: str | None
    unsaved: bool
    """True if the newest checkpoint could not be written."""
    score_name: str
    notes: list[TimedNote]
    samples: list[Sample]
    named: dict[str, str]
    """Digest of each part that the driver has."""
    heard: float = 0.0
    """Time of the last push, in seconds of the clock of `Runs`."""
    begun: float = 0.0
    """Time of the first push, in seconds of the clock of `Runs`."""
    parts: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Digest and content of each part that has arrived."""

    def state(self, now: float) -> str:
        """Return running, silent, finished, stopped or failed."""
        if self.ending:
            return self.ending
        return "silent" if now - self.heard > max(SILENT_SECONDS, MISSED * self.interval) else "running"

    def value(self, wanted: Series, *labels: str) -> float | None:
        """Return the value of one sample, or None if there is none."""
        return next((value for series, own, value in self.samples if series is wanted and own == labels), None)


class Runs:
    """All runs of a sidecar. Thread-safe.

    Args:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._runs: dict[tuple[str, str], Run] = {}
        self._lock = threading.Lock()

    def push(self, body: bytes, last: bool = False) -> list[str]:
        """Store a report on a run. Return the names of the parts that the driver is to send.

        Args:
            body: JSON of a `RunReport`.
            last: True if the driver is told to push no more.

        Raises:
            RefusedError: the body is no report, or exceeds a limit.
        """
        run = parse(body)
        if last:
            run.ending = run.ending or "stopped"
        with self._lock:
            now = run.heard = run.begun = self.clock()
            self._forget(now)
            before = self._runs.get((run.name, run.trial))
            if before is None:
                self._make_room(now)
            elif before.place != run.place and before.state(now) == "running":
                raise RefusedError(409, f"a run of that name at {before.place} is pushing: choose another run.name")
            else:
                run.begun = before.begun
                run.parts = {name: before.parts[name] for name in run.named if name in before.parts}
            self._runs[run.name, run.trial] = run
            wanted = [name for name, digest in run.named.items() if run.parts.get(name, ("",))[0] != digest]
            return wanted if self._room_for(len(wanted) * PART_BYTES, run, now) else []

    def put_part(self, name: str, trial: str, part: str, digest: str, data: bytes) -> None:
        """Store a part of a run.

        Raises:
            RefusedError: the newest report does not name the part, or there is no room for it.
        """
        with self._lock:
            run = self._runs.get((name, trial))
            if run is None or run.named.get(part) != digest or not self._room_for(len(data), run, self.clock()):
                raise RefusedError(404, "no such part was asked for")
            if part == "curve":
                data = json.dumps(_curve(data)).encode()
            run.parts[part] = (digest, data)

    def part(self, name: str, trial: str, part: str) -> tuple[str, bytes] | None:
        """Return digest and content of a part; None if the sidecar does not have it."""
        with self._lock:
            run = self._runs.get((name, trial))
            return run.parts.get(part) if run else None

    def known(self, within: float = KEEP_SECONDS) -> list[Run]:
        """Return the runs that pushed in the last `within` seconds: those without an ending first, then the newest.

        A search and its trials stand together, in the order of their names.
        """
        with self._lock:
            now = self.clock()
            self._forget(now)
            runs = [run for run in self._runs.values() if now - run.heard <= within]
        over, begun = dict[str, bool](), dict[str, float]()
        for run in runs:
            over[run.name] = over.get(run.name, True) and run.ending is not None
            begun[run.name] = max(begun.get(run.name, 0.0), run.begun)
        return sorted(runs, key=lambda run: (over[run.name], -begun[run.name], run.name, run.trial))

    def _forget(self, now: float) -> None:
        self._runs = {key: run for key, run in self._runs.items() if now - run.heard <= KEEP_SECONDS}

    def _make_room(self, now: float) -> None:
        """Drop the run that has been over for longest if there are RUNS runs.

        Raises:
            RefusedError: all of them are running.
        """
        if len(self._runs) < RUNS:
            return
        over = [run for run in self._runs.values() if run.state(now) != "running"]
        if not over:
            raise RefusedError(503, f"this sidecar shows {RUNS} runs at once, and all of them are running")
        oldest = min(over, key=lambda run: run.heard)
        del self._runs[oldest.name, oldest.trial]

    def _room_for(self, size: int, but: Run, now: float) -> bool:
        """Return True if parts of `size` bytes fit. Parts of runs that are over are dropped for them, oldest first."""
        held = sum(len(data) for run in self._runs.values() for _, data in run.parts.values())
        over = [run for run in self._runs.values() if run is not but and run.parts and run.state(now) != "running"]
        for run in sorted(over, key=lambda run: run.heard):
            if held + size <= ALL_PARTS_BYTES:
                break
            held -= sum(len(data) for _, data in run.parts.values())
            run.parts = {}
        return held + size <= ALL_PARTS_BYTES


def parse(body: bytes) -> Run:
    """Return the run of a pushed report. Unknown series, labels and parts are dropped.

    Raises:
        RefusedError: the body is no report, or exceeds a limit.
    """
    try:
        report = parse_report(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"not the state of a run: {str(error)[:100]}") from error
    if not (RUN_NAME.fullmatch(report.run) and TRIAL_NAME.fullmatch(report.trial)):
        raise RefusedError(400, "run or trial: letters, digits, `.`, `_` and `-` alone")
    samples = {(each[0].name, each[1]): each for item in report.series if (each := _sample(*item))}
    if len(samples) > SAMPLES:
        raise RefusedError(413, f"series: {len(samples)}, at most {SAMPLES} are accepted")
    ending = report.ending if report.ending in ENDINGS else "stopped"
    return Run(
        name=report.run,
        trial=report.trial,
        place=_text(report.place),
        interval=min(max(report.interval, 0), 3600),
        ending=ending if report.ending else None,
        unsaved=report.unsaved,
        score_name=_text(report.score_name),
        notes=[replace(note, text=_text(note.text)) for note in report.notes[-NOTES:]],
        samples=list(samples.values()),
        named={part: _text(report.parts[part]) for part in PARTS if part in report.parts},
    )


def _sample(name: Any = None, labels: Any = None, value: Any = None, *_: Any) -> Sample | None:
    """Return a sample; None if its series is unknown, a label is missing or too long, or the value is not finite."""
    series = BY_NAME.get(name) if isinstance(name, str) else None
    if series is None or series is UP or not isinstance(labels, dict) or not is_number(value):
        return None
    found = [labels.get(label) for label in series.labels]
    own = tuple(text for text in found if isinstance(text, str) and len(text) <= LABEL_CHARACTERS)
    return (series, own, float(value)) if len(own) == len(found) else None


def _curve(data: bytes) -> list[dict[str, float]]:
    """Parse a curve for browsers: a list of points with finite numbers only.

    Raises:
        RefusedError: it is anything else.
    """
    try:
        points = json.loads(data)
        curve = [{str(name): float(value) for name, value in point.items()} for point in points]
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise RefusedError(400, "curve: not a list of points") from error
    if not all({"images", "time"} <= point.keys() and all(map(math.isfinite, point.values())) for point in curve):
        raise RefusedError(400, "curve: points have images, time, and finite numbers")
    return curve


def _text(value: str) -> str:
    return value[:TEXT_CHARACTERS]
