"""State of a run, read from its folder."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ganrun.config import safe_yaml
from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import SEARCH_FILE, Line, course_of, parse_lines, read_curve, read_events
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.restarts import count_restarts
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.run_folder.time_breakdown import time_breakdown
from ganrun.storage import RECORD_BYTES, Entry, Storage, open_storage
from ganrun.telemetry.messages import FAILURE, PREEMPTION, RESIZE, RESUME, SEARCH_RECORDS, TrialReport
from ganrun.telemetry.records import (
    AttemptEnded,
    AttemptReserved,
    AttemptStarted,
    CheckpointWritten,
    CommandDied,
    EventRecord,
    OfAttempt,
    RunFinished,
    RunStopped,
    read_record,
)
from ganrun.telemetry.repeats import without_numbers
from ganrun.telemetry.series import DISTANCES, IMAGES_PER_SECOND

RUNNING, STOPPED, FINISHED, FAILED, NEVER_STARTED = "running", "stopped", "finished", "failed", "never started"
ROUTINE = (AttemptReserved, AttemptStarted, AttemptEnded, CheckpointWritten, RunFinished, RunStopped)
"""Classes of routine events, which are not shown as notes."""


@dataclass(frozen=True)
class LeaseHolder:
    """Holder of a run's lease."""

    holder: str
    expires: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """Newest checkpoint of a run."""

    checkpoint: str
    images: int
    time: float | None
    """Seconds since the epoch; None if the checkpoint is missing although `latest.json` names it."""


@dataclass(frozen=True)
class ScorePoint:
    """Score at a number of images: a Fréchet distance, or for points a mode distance."""

    images: int
    value: float


@dataclass(frozen=True)
class AttemptCounts:
    """Starts of the workers by cause, those included that were killed before their attempt began."""

    starts: int
    """All starts, the first included."""
    resumed: int
    """Starts after a stop."""
    restarted: int
    """Starts after a failure: a command or a worker that died, or an error."""
    moved: int
    """Restarts for a preemption or a resize."""
    workers: int | None
    """Number of workers at the last start; None before the first."""
    time: float | None
    """Time of the last start; None before the first."""


@dataclass(frozen=True)
class RunStatus:
    """State of a run. Times are in seconds since the epoch."""

    name: str
    place: str
    state: str
    images: int
    """Images shown: for a live run at the last tick, else at the newest checkpoint, where the run would resume."""
    total_images: int
    config: dict[str, Any]
    """Content of config.yaml, not validated, so that runs of other versions of ganrun can be shown and deleted."""
    lease: LeaseHolder | None
    latest: SavedCheckpoint | None
    last_score: ScorePoint | None
    best_score: ScorePoint | None
    attempts: AttemptCounts
    images_per_second: float | None
    """Speed at the last tick; None before the first."""
    notes: tuple[Line, ...]
    """Events except ROUTINE, and the faults of corrupt checkpoints, as lines with `count` and `first_time`. Those that
    differ only in numbers are one note, which is the newest of them."""
    spent: dict[str, float]
    """Seconds by part, such as `round` and `score` (time_breakdown.py); empty for a search, whose trials have them."""
    picture: str | None
    """URI of the newest picture of samples; None before the first."""
    bytes: int
    active: float
    """Time of the newest record."""
    faults: tuple[str, ...]
    """Faults of corrupt records."""
    trials: int = 0
    """Number of trials of a search, whose `images` is that of its slowest trial; 0 for a run."""


def read_status(storage: Storage) -> RunStatus:
    """Read the state of a run or a search.

    Raises:
        UserError: the folder is no run.
        RunError: the config or a pointer is corrupt.
    """
    config = read_config(storage)
    holder, latest, objects = live_holder(storage), RunFolder(storage).pointer("latest"), storage.objects()
    curve, damaged = read_curve(storage)
    events, damaged_events = read_events(storage)
    total, saved_images = config["train"]["total_images"], latest.images if latest else 0
    ticked = curve[-1]["images"] if curve else 0
    scores = _scores(curve, config)
    rates = [rate for line in curve if (rate := line.get(IMAGES_PER_SECOND.key))]
    pictures = storage.list("samples")
    run = RunStatus(
        name=storage.uri.rpartition("/")[2],
        place=storage.uri,
        state=_state(holder, saved_images >= total, course_of(events)),
        images=max(saved_images, ticked) if holder else saved_images,
        total_images=total,
        config=config,
        lease=holder,
        latest=_saved(latest, objects),
        last_score=scores[-1] if scores else None,
        best_score=_best(scores, config),
        attempts=_attempts(events),
        images_per_second=rates[-1] if rates else None,
        notes=_notes(events),
        spent=time_breakdown(curve, events),
        picture=f"{storage.uri}/samples/{pictures[-1]}" if pictures else None,
        bytes=sum(entry.bytes for entry in objects.values()),
        active=max(_times(curve, events), default=objects["config.yaml"].modified),
        faults=(*damaged, *damaged_events),
    )
    return _search(run, storage, objects) if SEARCH_FILE in objects else run


def followed_score(config: dict[str, Any], search: bool = False) -> tuple[str, bool]:
    """Return the name of the score that selects the best, and True if lower is better, from the content of config.yaml.

    It is `tune.metric` for a search, else `evaluate.best.metric`. Runs of earlier versions have no `evaluate.best`.
    """
    selection = (config.get("tune") if search else config.get("evaluate", {}).get("best")) or {}
    return selection.get("metric", "distance"), selection.get("mode") != "max"


def _scores(curve: list[Line], config: dict[str, Any]) -> list[ScorePoint]:
    """Return the values of the followed score."""
    metric, _ = followed_score(config)
    names = [series.key for series in DISTANCES] if metric == "distance" else [metric]
    values = ((line["images"], line.get(name)) for line in curve for name in names)
    return [ScorePoint(images, value) for images, value in values if value is not None]


def _best(scores: list[ScorePoint], config: dict[str, Any]) -> ScorePoint | None:
    sign = 1 if followed_score(config)[1] else -1
    return min(scores, key=lambda score: sign * score.value, default=None)


def _search(run: RunStatus, storage: Storage, objects: dict[str, Entry]) -> RunStatus:
    """Return the state of a search from search.jsonl and best.json. Its best checkpoint stands for the newest."""
    lines = parse_lines(storage.read(SEARCH_FILE), {"time", "kind"})
    reports = [each for line in lines if isinstance(each := read_record(line, SEARCH_RECORDS), TrialReport)]
    shown = {report.trial: report.images for report in reports}
    trials, best = run.config["tune"]["population"], RunFolder(storage).pointer("best")
    images = min(shown.values()) if len(shown) == trials else 0
    scored = [ScorePoint(each.images, each.score) for each in reports if each.score is not None]
    manifest = objects.get(f"{best.checkpoint}/manifest.json") if best else None
    return replace(
        run,
        trials=trials,
        latest=SavedCheckpoint(best.checkpoint, best.images, manifest.modified if manifest else None) if best else None,
        attempts=replace(run.attempts, workers=trials * run.config["cluster"]["workers"], time=lines[0]["time"]),
        images=images,
        state=RUNNING if run.lease else FINISHED if images >= run.total_images else STOPPED,
        last_score=scored[-1] if scored else None,
        best_score=ScorePoint(best.images, best.score) if best and best.score is not None else None,
        picture=f"{storage.uri}/samples.png" if "samples.png" in storage.list() else None,
        active=max(line["time"] for line in lines),
    )


def read_config(storage: Storage) -> dict[str, Any]:
    """Read the config of the run in this folder, without validation.

    Raises:
        UserError: the folder is no run.
        RunError: the config is corrupt.
    """
    try:
        config = safe_yaml.load(storage.read("config.yaml", RECORD_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{storage.uri} is no run: there is no config.yaml; runs are at run.storage/run.name") from None
    except yaml.YAMLError as error:
        raise RunError(
            f"{storage.uri}/config.yaml is corrupt: {' '.join(str(error).split())}; "
            "restore it from checkpoints/*/config.yaml"
        ) from error
    try:
        home = f"{config['run']['storage']}/{config['run']['name']}"
        int(config["train"]["total_images"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{storage.uri} is no run: its config.yaml is not that of one") from None
    # A config.yaml beside a user's own files makes no run. A run that was moved has events.
    begun = any(re.fullmatch(r"\d+\.jsonl", name) for name in storage.list("events"))
    if not begun and open_storage(home).uri != storage.uri:
        raise UserError(f"{storage.uri} is no run: it has no events, and its config.yaml is of a run at {home}")
    return config  # type: ignore[no-any-return]


def is_run(storage: Storage) -> bool:
    """Return True if this folder is that of a run."""
    try:
        read_config(storage)
    except UserError:
        return False
    return True


def live_holder(storage: Storage) -> LeaseHolder | None:
    """Return the live holder of the run's lease, or None."""
    found = storage.read_version(Lease.NAME)
    if found is None:
        return None
    lease = Lease.parse(found[0])
    return LeaseHolder(lease["holder"], lease["expires"]) if Lease.is_live(lease, storage.now()) else None


def _times(curve: list[Line], events: list[EventRecord]) -> Iterator[float]:
    """Yield the times of all lines that the run's own processes wrote."""
    yield from (line["time"] for line in curve)
    yield from (event.time for event in events if not isinstance(event, CommandDied))


def _state(holder: LeaseHolder | None, complete: bool, course: Sequence[EventRecord]) -> str:
    if holder:
        return RUNNING
    if complete:
        return FINISHED
    if not course:
        return NEVER_STARTED
    # A finish before the total: the total was raised since.
    return FAILED if isinstance(course[-1], AttemptStarted) else STOPPED


def _attempts(events: list[EventRecord]) -> AttemptCounts:
    starts, again = [event for event in events if isinstance(event, AttemptStarted)], count_restarts(events)
    workers, time = (starts[-1].workers, starts[-1].time) if starts else (None, None)
    return AttemptCounts(
        starts=again.total() + bool(starts),
        resumed=again[RESUME],
        restarted=again[FAILURE],
        moved=again[PREEMPTION] + again[RESIZE],
        workers=workers,
        time=time,
    )


def _notes(events: list[EventRecord]) -> tuple[Line, ...]:
    """Return the notes in the order of time; repeated ones are folded."""
    notes = [event.to_line() for event in events if not isinstance(event, ROUTINE)]
    for event in events:
        for fault in event.damaged if isinstance(event, OfAttempt) else ():
            notes.append({"time": event.time, "kind": "checkpoint_damaged", "message": fault})
    folded: dict[str, Line] = {}
    for note in sorted(notes, key=lambda note: float(note["time"])):
        words = without_numbers(str({name: value for name, value in note.items() if name != "time"}))
        earlier = folded.pop(words, {"count": 0, "first_time": note["time"]})
        folded[words] = note | {"count": earlier["count"] + 1, "first_time": earlier["first_time"]}
    return tuple(folded.values())


def _saved(latest: Pointer | None, objects: dict[str, Entry]) -> SavedCheckpoint | None:
    if latest is None:
        return None
    manifest = objects.get(f"checkpoints/{latest.checkpoint}/manifest.json")
    return SavedCheckpoint(latest.checkpoint, latest.images, manifest.modified if manifest else None)
