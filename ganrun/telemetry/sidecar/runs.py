"""The runs that a sidecar knows: what their drivers pushed, for how long, and how much of it.

A run is running while it pushes, silent when it has missed several pushes, and ended when it said so. Its series stay
in /metrics for EXPIRE_SECONDS after its last push, the run on the page for KEEP_SECONDS. A client may send what it
likes: names, labels, numbers of runs and series, and bytes all have a limit.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ganrun.telemetry.protocol import PART_BYTES, PARTS
from ganrun.telemetry.run_report import TimedNote, is_number, parse_report
from ganrun.telemetry.series import BY_NAME, UP, Series

SILENT_SECONDS, MISSED = 15.0, 4
"""A run is silent after so long without a push, or so many pushes that did not come."""
EXPIRE_SECONDS, KEEP_SECONDS = 900.0, 7 * 86_400.0
RUNS, SAMPLES, LABEL_CHARACTERS, TEXT_CHARACTERS, NOTES = 100, 4_000, 100, 500, 20
"""Of a run, so many series: two for each of 1,900 GPUs, and its own."""
ALL_PARTS_BYTES = 64 * 2**20
RUN_NAME, TRIAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"), re.compile(r"[A-Za-z0-9._-]{0,100}")
ENDINGS = ("finished", "stopped", "failed")
Sample = tuple[Series, tuple[str, ...], float]
"""A series, the values of its own labels, and its value."""


class RefusedError(Exception):
    """A request that is not taken: the HTTP status and why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Run:
    """A run as its driver last told it."""

    name: str
    trial: str
    place: str
    interval: float
    ending: str | None
    unsaved: bool
    """Whether the newest checkpoint could not be written."""
    score_name: str
    notes: list[TimedNote]
    samples: list[Sample]
    named: dict[str, str]
    """Digests of its parts."""
    heard: float = 0.0
    """Last, in seconds by the clock of `Runs`."""
    begun: float = 0.0
    """When it was first heard."""
    parts: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Digest and content."""

    def state(self, now: float) -> str:
        """running, silent, or how it ended."""
        if self.ending:
            return self.ending
        return "silent" if now - self.heard > max(SILENT_SECONDS, MISSED * self.interval) else "running"

    def value(self, wanted: Series, *labels: str) -> float | None:
        """Return the value of one sample, or None if there is none."""
        return next((value for series, own, value in self.samples if series is wanted and own == labels), None)


class Runs:
    """All runs, from several threads.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._runs: dict[tuple[str, str], Run] = {}
        self._lock = threading.Lock()

    def push(self, body: bytes, last: bool = False) -> list[str]:
        """Take a report on a run and return which of its parts are wanted.

        Args:
            body: JSON of a `RunReport`.
            last: True if the driver is told to push no more.

        Raises:
            RefusedError: it is no report, or more than is taken.
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
        """Takes a part of a run.

        Raises:
            RefusedError: nobody asked for it.
        """
        with self._lock:
            run = self._runs.get((name, trial))
            if run is None or run.named.get(part) != digest or not self._room_for(len(data), run, self.clock()):
                raise RefusedError(404, "no such part was asked for")
            if part == "curve":
                data = json.dumps(_curve(data)).encode()
            run.parts[part] = (digest, data)

    def part(self, name: str, trial: str, part: str) -> tuple[str, bytes] | None:
        """Digest and content of a part."""
        with self._lock:
            run = self._runs.get((name, trial))
            return run.parts.get(part) if run else None

    def known(self, within: float = KEEP_SECONDS) -> list[Run]:
        """The runs heard of in so many seconds, those that have not ended first, of them the newest."""
        with self._lock:
            now = self.clock()
            self._forget(now)
            runs = [run for run in self._runs.values() if now - run.heard <= within]
        return sorted(runs, key=lambda run: (run.ending is not None, -run.begun, run.name, run.trial))

    def _forget(self, now: float) -> None:
        self._runs = {key: run for key, run in self._runs.items() if now - run.heard <= KEEP_SECONDS}

    def _make_room(self, now: float) -> None:
        """Of too many runs the one goes that has been over for longest."""
        if len(self._runs) < RUNS:
            return
        over = [run for run in self._runs.values() if run.state(now) != "running"]
        if not over:
            raise RefusedError(503, f"this sidecar shows {RUNS} runs at once, and all of them are running")
        oldest = min(over, key=lambda run: run.heard)
        del self._runs[oldest.name, oldest.trial]

    def _room_for(self, size: int, but: Run, now: float) -> bool:
        """Whether so many bytes of parts find room; those of runs that are over make it, the oldest first."""
        held = sum(len(data) for run in self._runs.values() for _, data in run.parts.values())
        over = [run for run in self._runs.values() if run is not but and run.parts and run.state(now) != "running"]
        for run in sorted(over, key=lambda run: run.heard):
            if held + size <= ALL_PARTS_BYTES:
                break
            held -= sum(len(data) for _, data in run.parts.values())
            run.parts = {}
        return held + size <= ALL_PARTS_BYTES


def parse(body: bytes) -> Run:
    """Return the run of a pushed report. Series, labels and parts that are not known here are left out.

    Raises:
        RefusedError: it is no report, or more than is taken.
    """
    try:
        report = parse_report(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"not the state of a run: {str(error)[:100]}") from error
    if not (RUN_NAME.fullmatch(report.run) and TRIAL_NAME.fullmatch(report.trial)):
        raise RefusedError(400, "run or trial: letters, digits, `.`, `_` and `-` alone")
    samples = {(each[0].name, each[1]): each for item in report.series if (each := _sample(*item))}
    if len(samples) > SAMPLES:
        raise RefusedError(413, f"series: {len(samples)}, at most {SAMPLES} are taken")
    ending = report.ending if report.ending in ENDINGS else "stopped"
    return Run(
        name=report.run,
        trial=report.trial,
        place=_text(report.place),
        interval=min(max(report.interval, 0), 3600),
        ending=ending if report.ending else None,
        unsaved=report.unsaved,
        score_name=_text(report.score_name),
        notes=[TimedNote(note.time, _text(note.text)) for note in report.notes[-NOTES:]],
        samples=list(samples.values()),
        named={part: _text(report.parts[part]) for part in PARTS if part in report.parts},
    )


def _sample(name: Any = None, labels: Any = None, value: Any = None, *_: Any) -> Sample | None:
    """Return one of series.py; None for what is unknown here, too long, or no finite number."""
    series = BY_NAME.get(name) if isinstance(name, str) else None
    if series is None or series is UP or not isinstance(labels, dict) or not is_number(value):
        return None
    found = [labels.get(label) for label in series.labels]
    own = tuple(text for text in found if isinstance(text, str) and len(text) <= LABEL_CHARACTERS)
    return (series, own, float(value)) if len(own) == len(found) else None


def _curve(data: bytes) -> list[dict[str, float]]:
    """Points of finite numbers, or nothing: browsers are sent no more than that."""
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
