"""Trackers beside a run: a thread each hands on the messages that a sidecar gets. The run never waits for them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ganrun.telemetry import messages, records
from ganrun.telemetry import series as metrics
from ganrun.telemetry.state import COUNTED
from ganrun.telemetry.trackers import TRACKERS, TrackedRun, Tracker

QUEUED = 1_000
"""Most messages that wait for a tracker; then the oldest is dropped."""
CLOSE_SECONDS = 10.0
"""Longest time in seconds that the end of a run waits for its trackers, all together."""
RETRY_SECONDS = 30.0
"""Pause in seconds after a tracker failed."""
PICTURE_SECONDS = 30.0
"""Least time in seconds between two pictures of a run; the newest one is sent."""
LISTEN_SECONDS = 1.0
KEPT = (
    messages.WorkersStarted
    | messages.Tick
    | messages.ScoreTaken
    | messages.SamplesDrawn
    | messages.Ending
    | records.CheckpointWritten
    | records.CheckpointFailed
    | records.RolledBack
    | records.Exploited
)
"""Events that a tracker shows. The others are words for the terminal."""


class Scalars:
    """Values for charts, made of a run's events, by their keys in lines of metrics/ (series.py). Counters are totals.

    Args:
        totals: counters of the run before this command, by key.
    """

    def __init__(self, totals: Mapping[str, float]) -> None:
        self._totals = dict(totals)

    def of(self, event: messages.Event) -> dict[str, float]:
        """Return the values of an event."""
        if counter := COUNTED.get(type(event)):
            return {counter.key: self._count(counter.key, 1)}
        match event:
            case messages.WorkersStarted():
                return {metrics.WORKERS.key: event.workers}
            case messages.Tick():
                # A thousand ranks would be most of the charts.
                values = {key: value for key, value in event.values.items() if not metrics.of_a_rank(key)}
                return {k: self._count(k, value) if metrics.is_summed(k) else value for k, value in values.items()}
            case messages.ScoreTaken():
                return {key: value for key, value in event.values.items() if value is not None}
            case messages.SamplesDrawn():
                return {metrics.SAMPLE_DIVERSITY.key: event.diversity}
            case records.CheckpointWritten():
                return {
                    metrics.CHECKPOINT_BYTES.key: event.bytes,
                    metrics.CHECKPOINT_SECONDS.key: event.upload_seconds,
                    metrics.CHECKPOINT_BLOCKED_SECONDS.key: event.blocked_seconds,
                }
            case _:
                return {}

    def _count(self, key: str, amount: float) -> float:
        self._totals[key] = self._totals.get(key, 0) + amount
        return self._totals[key]


class _Followed:
    """A run and its tracker, used by one thread."""

    def __init__(self, tracker: Tracker, run: TrackedRun) -> None:
        self.tracker, self._scalars, self._ending = tracker, Scalars(run.totals), ""

    def take(self, event: messages.Event, when: float) -> None:
        """Hand on an event that was sent at `when`, in seconds since the epoch."""
        match event:
            case messages.Finished() | messages.Stopped() | messages.Failed():
                self._ending = event.kind
                return
            case messages.SamplesDrawn(images, png):
                self.tracker.picture(images, when, png)
            case messages.WorkersStarted(images) | records.RolledBack(images=images):
                self._ending = ""
                self.tracker.begin(images, when)
            case records.Exploited(images=images):
                self.tracker.begin(images, when)
                self.tracker.text("lineage", images, when, describe_exploit(event))
            case messages.ScoreTaken(images):
                self.tracker.text("score", images, when, describe_score(event))
        if isinstance(event, KEPT) and (values := self._scalars.of(event)):
            self.tracker.scalars(event.images, when, values)

    def close(self, ending: str) -> None:
        """End the tracker's run; `ending` counts if the run has told none of its own."""
        self.tracker.close(self._ending or ending)


def describe_exploit(event: records.Exploited) -> str:
    """Return an exploit in words."""
    donor, changed = (event.donor or "").rpartition("/")[2], ", ".join(f"{k}: {v}" for k, v in event.values.items())
    return f"at {event.images:,} images a copy of trial {donor}, with {changed}"


def describe_score(event: messages.ScoreTaken) -> str:
    """Return a score in words. Its name has its provenance."""
    value, best = "not finite" if event.value is None else f"{event.value:.5g}", ", the best so far" * event.best
    return f"{event.name}: {value} at {event.images:,} images{best}"


class TrackerThread:
    """Thread of one tracker for all runs of a command: one, or the trials of a search.

    Args:
        name: one of TRACKERS.
        runs: the runs by name of the trial; "" outside a search.
        write_line: writes a line to the terminal.
    """

    def __init__(self, name: str, runs: Mapping[str, TrackedRun], write_line: Callable[[str], None]) -> None:
        self.name, self._runs, self._write_line = name, runs, write_line
        self._events: deque[tuple[str, messages.Event, float]] = deque()
        self._pictures: dict[str, tuple[messages.SamplesDrawn, float]] = {}
        """The newest picture of each run that waits."""
        self._pictured: dict[str, float] = {}
        """When a picture of each run was sent last, by the monotonic clock."""
        self._followed: dict[str, _Followed] = {}
        self._changed = threading.Condition()
        self._ending, self._over, self._told, self._dropped = "", False, False, 0
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def offer(self, trial: str, event: messages.Event) -> None:
        """Queue an event. If too many wait, the oldest is dropped."""
        if self._over or not isinstance(event, KEPT):
            return
        with self._changed:
            if isinstance(event, messages.SamplesDrawn):
                self._pictures[trial] = event, time.time()
            else:
                self._events.append((trial, event, time.time()))
                if len(self._events) > QUEUED:
                    self._events.popleft()
                    self._dropped += 1
            self._changed.notify()

    def end(self, ending: str) -> None:
        """Have the thread send what waits, and end. `ending` is finished, stopped or failed."""
        with self._changed:
            self._ending = ending
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait for the thread, at most so many seconds, and say what is lost."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._write_line(f"tracker {self.name}: does not answer; the run ends without it")
        elif self._dropped:
            self._write_line(f"tracker {self.name}: slower than the run, so that {self._dropped:,} messages are lost")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._events or self._due() or self._ending), LISTEN_SECONDS)
                ending = self._ending
            try:
                self._send()
                if ending:
                    for followed in self._followed.values():
                        followed.close(ending)
                    return
            except ImportError as error:
                self._over = True
                self._tell(f"{error.name or error} is missing: pip install 'ganrun[{self.name}]'; the run goes on")
                return
            except Exception as error:  # Whatever it is, it must not end the training.
                self._tell(f"{error or type(error).__name__}; the run goes on, and it is tried again")
                if ending:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: bool(self._ending), RETRY_SECONDS)

    def _send(self) -> None:
        while self._events:
            self._of(self._events[0][0])  # First: a message waits until the tracker can be opened.
            with self._changed:
                trial, event, when = self._events.popleft()
            self._of(trial).take(event, when)
        for trial in self._due():
            followed = self._of(trial)
            with self._changed:
                picture, when = self._pictures.pop(trial)
            self._pictured[trial] = time.monotonic()
            followed.take(picture, when)
        for followed in self._followed.values():
            followed.tracker.flush()

    def _due(self) -> list[str]:
        """Return the runs with a picture to send."""
        before = time.monotonic() - PICTURE_SECONDS
        with self._changed:
            return [each for each in self._pictures if self._ending or self._pictured.get(each, before) <= before]

    def _of(self, trial: str) -> _Followed:
        if trial not in self._followed:
            run = self._runs[trial]
            self._followed[trial] = _Followed(TRACKERS[self.name](run), run)
        return self._followed[trial]

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._write_line(f"tracker {self.name}: {' '.join(why.split())[:500]}")


class Tracking:
    """Trackers of a command.

    Args:
        names: some of TRACKERS.
        runs, write_line: see `TrackerThread`.
    """

    def __init__(self, names: Sequence[str], runs: Mapping[str, TrackedRun], write_line: Callable[[str], None]) -> None:
        self._threads = [TrackerThread(name, runs, write_line) for name in dict.fromkeys(names)]

    def handle(self, event: messages.Event, trial: str = "") -> None:
        """Take an event of a run."""
        for thread in self._threads:
            thread.offer(trial, event)

    def close(self, ending: str) -> None:
        """End all trackers: the command is finished, stopped or failed. Wait at most CLOSE_SECONDS."""
        for thread in self._threads:
            thread.end(ending)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
