"""State of a run or a search in its driver, computed from messages and pushed to a sidecar."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from ganrun.config.schema import RunConfig, TelemetryConfig, TrainConfig
from ganrun.telemetry import messages, records
from ganrun.telemetry import series as metrics
from ganrun.telemetry.baselines import compare, split
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.telemetry.pushed_state import PushedState
from ganrun.telemetry.series import DISTANCES, Series, is_charted, read_tick_key

Point = dict[str, float]
POINTS = 400
"""Limit of the points of a curve, which is thinned evenly to no fewer than half."""
COUNTED: dict[type[records.Message], Series] = {
    records.RolledBack: metrics.ROLLBACKS,
    records.CheckpointFailed: metrics.CHECKPOINT_FAILURES,
    records.Exploited: metrics.EXPLOITS,
}
"""Counter of each class of events."""


@dataclass(frozen=True)
class RunHistory:
    """State of a run before this command."""

    totals: dict[str, float] = field(default_factory=dict)
    """Values of counters by key, labels included."""
    curve: list[Point] = field(default_factory=list)
    restart: str | None = None
    """Reason of this command's start: FAILURE or RESUME; None for the first."""
    picture: bytes | None = None
    """First picture of samples, as PNG."""


class SearchState(PushedState):
    """State of a search: number of trials in each state.

    Args:
        run, telemetry: sections of the search's config.
    """

    def __init__(self, run: RunConfig, telemetry: TelemetryConfig) -> None:
        super().__init__(run.name, "", run.uri, telemetry.push_seconds)
        self.observe({})

    def observe(self, states: Mapping[str, str]) -> None:
        """Update the counts from the state of each trial, by name."""
        counts = Counter(states.values())
        with self._lock:
            for state in messages.TRIAL_STATES:
                self._set(metrics.TRIALS, counts[state], state)


class RunState(PushedState):
    """State of a run, computed from the events of its workers. Counters cover all attempts of the run.

    Args:
        run, train, telemetry: sections of the run's config.
        history: state before this command.
        search: name of the search whose trial the run is; empty outside one.
    """

    def __init__(
        self, run: RunConfig, train: TrainConfig, telemetry: TelemetryConfig, history: RunHistory, search: str = ""
    ) -> None:
        super().__init__(search or run.name, run.name if search else "", run.uri, telemetry.push_seconds)
        self._curve = list(history.curve)
        self._parts = {"first": history.picture} if history.picture else {}
        self._restart = history.restart
        self._begun, self._failures = False, 0
        """Whether this command's workers have started; its failures before their newest start."""
        self._set(metrics.TARGET_IMAGES, train.total_images)
        # Alerts use the increase of a counter, so it must exist from the start.
        for series in metrics.COUNTERS.values():
            if not series.labels and series is not metrics.GPU_SECONDS and (search or series is not metrics.EXPLOITS):
                self._count(series, 0)
        for reason in messages.RESTART_REASONS:
            self._count(metrics.RESTARTS, 0, reason)
        for key, total in history.totals.items():
            name, _, label = key.partition("/")
            self._count(metrics.COUNTERS[name], total, *([label] if label else []))

    def handle(self, event: messages.Event) -> None:
        """Update the state by an event of the workers."""
        with self._lock:
            if counter := COUNTED.get(type(event)):
                self._count(counter, 1)
            self._handle(event)

    def _handle(self, event: messages.Event) -> None:
        match event:
            case messages.WorkersStarted():
                self._started(event)
            case messages.Progress(images):
                self._move(images)
            case messages.Tick(images, values):
                self._tick(images, values)
            case messages.ScoreTaken():
                self._score(event)
            case messages.SamplesDrawn():
                self._picture(event)
            case messages.Note(text):
                self.note(text)
            case messages.Restart(_, _, why):
                self._set(metrics.WORKERS, 0)
                if why:
                    self.note(f"{why}; the workers are started again.")
            case messages.Finished(images):
                self._move(images)
                self.end("finished")
            case messages.Stopped(images):
                self._move(images)
                self.end("stopped")
            case records.RolledBack() | records.Exploited():
                self._begin_at(event.images)
            case records.CheckpointWritten():
                self._checkpoint(event)
            case records.CheckpointFailed():
                self._unsaved = True
            case messages.Failed() | messages.LastScoresAwaited():
                pass  # The driver reports the failure itself.
            case (
                records.CheckpointDropped()
                | records.BestNotMoved()
                | records.DeletionFailed()
                | records.ScoreWanted()
                | records.ScoreFailed()
                | records.ProfileEnded()
                | records.CollapseSuspected()
                | records.ScheduleStepped()
                | records.DrainBegun()
            ):
                pass  # Their messages arrive as notes.
            case _:
                assert_never(event)

    def _started(self, event: messages.WorkersStarted) -> None:
        reasons = Counter({messages.FAILURE: max(event.failures - self._failures, 0)})
        if event.reason in (messages.PREEMPTION, messages.RESIZE):
            reasons[event.reason] += 1
        if self._restart and (event.reason is None or not self._begun):
            reasons[self._restart] += 1
        reasons = +reasons
        # Without a reason a later start is that of a trial's next process, after the last one died.
        self._restart, self._begun, self._failures = messages.FAILURE, True, event.failures
        for reason, count in reasons.items():
            self._count(metrics.RESTARTS, count, reason)
        if reasons:
            self.note(f"Started again from {event.images:,} images ({', '.join(reasons)}).")
        self._forget(*(series for series in metrics.SERIES if series.of_a_rank))
        self._set(metrics.WORKERS, event.workers)
        self._begin_at(event.images)

    def _begin_at(self, images: int) -> None:
        """Cut the curve off after `images`: later images are shown again."""
        self._set(metrics.IMAGES, images)
        self._curve = [point for point in self._curve if images and point["images"] <= images]

    def _move(self, images: int) -> None:
        self._count(metrics.IMAGES_SHOWN, images - self._values.get((metrics.IMAGES, ()), 0))
        self._set(metrics.IMAGES, images)

    def _tick(self, images: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            series, labels = read_tick_key(key)
            put = self._count if series.kind == "counter" else self._set
            put(series, value, *labels)
        self._move(images)
        self._point(images, values)

    def _score(self, event: messages.ScoreTaken) -> None:
        self._score_name = event.name
        for name, value in event.values.items():
            if "/" in name:  # The score of one class; their number is not bounded.
                continue
            shown = math.nan if value is None else value
            if name == metrics.FRECHET_DISTANCE.key:
                self._set(metrics.FRECHET_DISTANCE, shown, event.extractor or "", str(event.samples))
            elif series := metrics.SCORES.get(name):
                self._set(series, shown)
            else:
                self._set(metrics.EVALUATION, shown, *split(name))
        for comparison in compare(event.values):
            self._set(metrics.WORSE_THAN_BASELINE, float(comparison.is_worse), comparison.score)
        self._point(event.images, event.values)

    def _picture(self, event: messages.SamplesDrawn) -> None:
        self._parts.setdefault("first", event.png)
        self._parts["latest"] = event.png
        self._set(metrics.SAMPLE_DIVERSITY, event.diversity)

    def _checkpoint(self, event: records.CheckpointWritten) -> None:
        self._unsaved = False
        self._set(metrics.CHECKPOINT_BYTES, event.bytes)
        self._set(metrics.CHECKPOINT_SECONDS, event.upload_seconds)
        self._set(metrics.CHECKPOINT_BLOCKED_SECONDS, event.blocked_seconds)
        self._set(metrics.CHECKPOINT_TIME, event.time)

    def _all_parts(self) -> dict[str, bytes]:
        parts = dict(self._parts)
        if self._curve:
            parts["curve"] = json.dumps(self._curve).encode()
        return {name: data for name, data in parts.items() if len(data) <= PART_BYTES}

    def _point(self, images: int, values: Mapping[str, float | None]) -> None:
        self._curve.append(point(images, time.time(), values))
        if len(self._curve) > POINTS:
            # Scores are few and kept; every second tick is dropped.
            scores = [each for each in self._curve if any(score.key in each for score in DISTANCES)]
            ticks = [each for each in self._curve if each not in scores]
            kept = ticks[1::2] + (scores[1::2] if len(scores) > POINTS // 2 else scores)
            self._curve = sorted(kept, key=lambda each: each["images"])


def point(images: float, when: float, values: Mapping[str, float | None]) -> Point:
    """Return a point of the curve, rounded to five significant digits: more than a plot resolves."""
    shown = {
        key: float(f"{value:.5g}")
        for key, value in values.items()
        if is_charted(key) and isinstance(value, int | float) and math.isfinite(value)
    }
    return {"images": images, "time": round(when), **shown}


def thinned(curve: list[Point]) -> list[Point]:
    """Return at most POINTS evenly spaced points of a curve, the last included."""
    step = math.ceil(len(curve) / POINTS) or 1
    return curve[::-step][::-1]
