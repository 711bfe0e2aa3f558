"""What the workers of a run say, as the state that its driver pushes to a sidecar."""

import hashlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ganrun.config.schema import RunConfig, TelemetryConfig, TrainConfig
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.telemetry.series import BY_NAME, COMMON, DISTANCES

Labels = tuple[tuple[str, str], ...]
Point = dict[str, float]
POINTS, NOTES, NOTE_CHARACTERS = 400, 20, 500
"""Of a curve, at least half of so many are kept, evenly; the newest notes."""


@dataclass(frozen=True)
class RunHistory:
    """A run as it was before this command: totals by tick name, its curve, its last start or end, its first picture."""

    totals: dict[str, float] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    last: str | None = None
    picture: bytes | None = None


class PushedState:
    """What is shown of a run and of a search alike: where it is, how it ended, and its newest notes.

    Args:
        run: name of the run or search.
        trial: name of the trial in the search `run`; empty outside one.
        place: address of its folder.
        push_seconds: interval of pushes.
    """

    def __init__(self, run: str, trial: str, place: str, push_seconds: int) -> None:
        self.run, self.trial, self.place, self.push_seconds = run, trial, place, push_seconds
        self.ending: str | None = None
        self._notes: deque[dict[str, Any]] = deque(maxlen=NOTES)
        self._lock = threading.RLock()

    def note(self, text: str) -> None:
        """A line that is shown with the time."""
        with self._lock:
            self._notes.append({"time": time.time(), "text": text[:NOTE_CHARACTERS]})

    def _head(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "trial": self.trial,
            "place": self.place,
            "interval": self.push_seconds,
            "ending": self.ending,
            "notes": list(self._notes),
        }


class RunState(PushedState):
    """Handles the workers' events in the driver and knows the run's state at any moment.

    Counters are sums over the run's whole life.

    Args:
        run, train, telemetry: sections of the run's config.
        history: what came before this command.
        search: name of the search whose trial the run is; empty outside one.
    """

    def __init__(
        self, run: RunConfig, train: TrainConfig, telemetry: TelemetryConfig, history: RunHistory, search: str = ""
    ) -> None:
        super().__init__(search or run.name, run.name if search else "", run.uri, telemetry.push_seconds)
        self._values: dict[tuple[str, Labels], float] = {}
        self._curve, self._parts = list(history.curve), {"first": history.picture} if history.picture else {}
        self._score_name, self._unsaved = "", False
        self._restart = {None: None, "start": "failure"}.get(history.last, "resume")
        self._set("target_images", train.total_images)
        for name in ("nonfinite", "rollbacks", "checkpoint_failures", "samples_skipped", "images", "shard_bytes"):
            self._count(name, 0)  # Alerts ask by how much a counter rose: it must have been there before.
        if search:
            self._count("exploits", 0)
        for reason in ("failure", "preemption", "resize", "resume"):
            self._count(f"restarts/{reason}", 0)
        for name, total in history.totals.items():
            self._count(name, total)

    def handle(self, event: dict[str, Any]) -> None:
        """Takes one event of the workers."""
        with self._lock:
            handle = getattr(self, f"_handle_{event['kind']}", None)
            if handle is not None:
                handle(event)

    def end(self, ending: str, text: str = "") -> None:
        """The run is over: finished, stopped or failed, and what it failed of."""
        with self._lock:
            self._end(ending)
            if text:
                self.note(text)

    def report(self) -> dict[str, Any]:
        """The body of a push; see protocol.py."""
        with self._lock:
            values = list(self._values.items())
            report = self._head() | {
                "score_name": self._score_name,
                "unsaved": self._unsaved,
                "parts": {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self._all_parts().items()},
            }
        series = [[name, dict(labels), value] for (name, labels), value in values if math.isfinite(value)]
        return report | {"series": series}

    def part(self, name: str) -> bytes:
        """A part of the state that the report names."""
        with self._lock:
            return self._all_parts()[name]

    def _all_parts(self) -> dict[str, bytes]:
        parts = dict(self._parts)
        if self._curve:
            parts["curve"] = json.dumps(self._curve).encode()
        return {name: data for name, data in parts.items() if len(data) <= PART_BYTES}

    def _handle_started(self, event: dict[str, Any]) -> None:
        self._restart = event.get("reason") or self._restart
        if self._restart:
            self._count(f"restarts/{self._restart}", 1)
            self.note(f"Started again from {event['images']:,} images ({self._restart}).")
        self._restart = "failure"  # Of this command, every further start is.
        for key in [key for key in self._values if "rank" in dict(key[1])]:
            del self._values[key]
        self._set("workers", event["workers"])
        self._begin_at(event["images"])

    def _handle_restart(self, event: dict[str, Any]) -> None:
        self._set("workers", 0)
        if event["why"]:
            self.note(f"{event['why']}; the workers are started again.")

    def _handle_rollback(self, event: dict[str, Any]) -> None:
        self._count("rollbacks", 1)
        self._begin_at(event["images"])

    def _handle_exploit(self, event: dict[str, Any]) -> None:
        self._count("exploits", 1)
        self._begin_at(event["images"])

    def _handle_images(self, event: dict[str, Any]) -> None:
        before = self._values.get(("images", ()), 0)
        self._count("images", event["images"] - before)
        self._set("images", event["images"])

    def _handle_tick(self, event: dict[str, Any]) -> None:
        for name, value in event["values"].items():
            self._take(name, value)
        self._handle_images(event)
        self._point(event["images"], event["values"])

    def _handle_score(self, event: dict[str, Any]) -> None:
        self._score_name = event["name"]
        of_distance = (("extractor", event["extractor"]), ("samples", str(event["samples"])))
        for name, value in event["values"].items():
            if "/" in name:  # Of one class, of which there may be any number.
                continue
            if name == "frechet_distance":
                key: tuple[str, Labels] = name, of_distance
            else:
                key = (name, ()) if name in BY_NAME else ("evaluation", (("metric", name),))
            self._values[key] = math.nan if value is None else value
        self._point(event["images"], event["values"])

    def _handle_picture(self, event: dict[str, Any]) -> None:
        self._parts.setdefault("first", event["png"])
        self._parts["latest"] = event["png"]
        self._set("sample_diversity", event["diversity"])

    def _handle_checkpoint(self, event: dict[str, Any]) -> None:
        self._unsaved = False
        self._set("checkpoint_bytes", event["bytes"])
        self._set("checkpoint_seconds", event["upload_seconds"])
        self._set("checkpoint_blocked_seconds", event["blocked_seconds"])
        self._set("checkpoint_last_success_timestamp_seconds", event["time"])

    def _handle_checkpoint_failed(self, event: dict[str, Any]) -> None:
        self._unsaved = True
        self._count("checkpoint_failures", 1)

    def _handle_finished(self, event: dict[str, Any]) -> None:
        self._handle_images(event)
        self._end("finished")

    def _handle_stopped(self, event: dict[str, Any]) -> None:
        self._handle_images(event)
        self._end("stopped")

    def _end(self, ending: str) -> None:
        self.ending = ending
        self._values = {key: value for key, value in self._values.items() if key[0] != "ended"}
        self._values["ended", (("ending", ending),)] = 1

    def _handle_note(self, event: dict[str, Any]) -> None:
        self.note(event["text"])

    def _begin_at(self, images: int) -> None:
        """What was beyond is shown anew."""
        self._set("images", images)
        self._curve = [point for point in self._curve if images and point["images"] <= images]

    def _take(self, name: str, value: float) -> None:
        """A value of a tick: `gauge`, `gauge/label`, `loss/player/part`, or what is added to a counter."""
        head, _, rest = name.partition("/")
        if head == "loss":
            player, _, part = rest.partition("/")
            self._values["loss", (("player", player), ("part", part or "total"))] = value
        elif head in BY_NAME:
            self._set(name, value)
        elif f"{head}_total" in BY_NAME:
            self._count(name, value)
        else:  # A loss of the user's own reports what it likes.
            self._values["loss", (("player", ""), ("part", name))] = value

    def _set(self, name: str, value: float) -> None:
        self._values[_key(name)] = value

    def _count(self, name: str, amount: float) -> None:
        head, slash, rest = name.partition("/")
        key = _key(f"{head}_total{slash}{rest}")
        self._values[key] = self._values.get(key, 0) + amount

    def _point(self, images: int, values: Mapping[str, float | None]) -> None:
        self._curve.append(point(images, time.time(), values))
        if len(self._curve) > POINTS:
            # Scores are few; of ticks every second one goes.
            scores = [each for each in self._curve if any(name in each for name in DISTANCES)]
            ticks = [each for each in self._curve if each not in scores]
            kept = ticks[1::2] + (scores[1::2] if len(scores) > POINTS // 2 else scores)
            self._curve = sorted(kept, key=lambda each: each["images"])


def point(images: float, when: float, values: Mapping[str, float | None]) -> Point:
    """A point of a curve: to five digits, which is more than a picture shows."""
    shown = {
        name: float(f"{value:.5g}")
        for name, value in values.items()
        if name.startswith(("loss/", "logit/", "gradient_norm/")) or name in ("images_per_second", *DISTANCES)
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return {"images": images, "time": round(when), **shown}


def thinned(curve: list[Point]) -> list[Point]:
    """At most as many points as a curve keeps, evenly."""
    step = math.ceil(len(curve) / POINTS) or 1
    return curve[::-step][::-1]


def _key(name: str) -> tuple[str, Labels]:
    head, _, rest = name.partition("/")
    labels = BY_NAME[head].labels
    assert head not in COMMON
    return head, ((labels[0], rest),) if labels else ()
