"""Pushes of a driver to a sidecar: values, notes and ending of a run, a trial or a search."""

import hashlib
import math
import threading
import time

from ganrun.telemetry import series as metrics
from ganrun.telemetry.repeats import without_numbers
from ganrun.telemetry.run_report import RunReport, TimedNote
from ganrun.telemetry.series import Series

NOTES, NOTE_CHARACTERS = 20, 500
"""Limits: newest notes, characters of a note."""


class PushedState:
    """Values, notes and ending of a run, a trial or a search. Thread-safe.

    Args:
        run: name of the run or search; for a trial, name of the search.
        trial: name of the trial; empty for a run or a search.
        place: URI of its folder.
        push_seconds: interval of pushes in seconds.
    """

    def __init__(self, run: str, trial: str, place: str, push_seconds: int) -> None:
        self.run, self.trial, self.place, self.push_seconds = run, trial, place, push_seconds
        self.ending: str | None = None
        self._values: dict[tuple[Series, tuple[str, ...]], float] = {}
        self._notes: dict[str, TimedNote] = {}
        """The newest note of those that differ only in numbers, by the text without them; the newest last."""
        self._score_name, self._unsaved = "", False
        self._lock = threading.RLock()

    def note(self, text: str) -> None:
        """Add a note with the current time. It takes the place of one that differs only in numbers."""
        now, text = time.time(), text[:NOTE_CHARACTERS]
        with self._lock:
            earlier = self._notes.pop(without_numbers(text), None)
            count, first = (earlier.count + 1, earlier.first_time) if earlier else (1, now)
            self._notes[without_numbers(text)] = TimedNote(now, text, count, first)
            if len(self._notes) > NOTES:
                del self._notes[next(iter(self._notes))]

    def end(self, ending: str, text: str = "") -> None:
        """Set the ending (finished, stopped or failed), with a reason if there is one."""
        with self._lock:
            self.ending = ending
            self._forget(metrics.ENDED)
            self._set(metrics.ENDED, 1, ending)
            if text:
                self.note(text)

    def report(self) -> RunReport:
        """Return the report to push."""
        with self._lock:
            values = list(self._values.items())
            digests = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self._all_parts().items()}
            notes, score_name = list(self._notes.values()), self._score_name
            unsaved, ending = self._unsaved, self.ending
        return RunReport(
            run=self.run,
            trial=self.trial,
            place=self.place,
            interval=self.push_seconds,
            ending=ending,
            notes=notes,
            score_name=score_name,
            unsaved=unsaved,
            parts=digests,
            series=[
                (series.name, dict(zip(series.labels, labels, strict=True)), value)
                for (series, labels), value in values
                if math.isfinite(value)
            ],
        )

    def part(self, name: str) -> bytes:
        """Return the content of a part that the report names."""
        with self._lock:
            return self._all_parts()[name]

    def _all_parts(self) -> dict[str, bytes]:
        return {}

    def _set(self, series: Series, value: float, *labels: str) -> None:
        self._values[series, labels] = value

    def _count(self, series: Series, amount: float, *labels: str) -> None:
        self._values[series, labels] = self._values.get((series, labels), 0) + amount

    def _forget(self, *several: Series) -> None:
        self._values = {key: value for key, value in self._values.items() if key[0] not in several}
