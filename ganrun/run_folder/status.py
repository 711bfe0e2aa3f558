"""The state of a run, read from its folder."""

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ganrun.config import safe_yaml
from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import SEARCH_FILE, Line, course_of, parse_lines, read_curve, read_events
from ganrun.run_folder.lease import Lease
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.run_folder.time_breakdown import time_breakdown
from ganrun.storage import RECORD_BYTES, Entry, Storage, open_storage
from ganrun.telemetry.messages import FAILURE, SEARCH_RECORDS, TrialReport
from ganrun.telemetry.records import AttemptEnded, AttemptReserved, AttemptStarted, CheckpointWritten, read_record
from ganrun.telemetry.series import DISTANCES, IMAGES_PER_SECOND

RUNNING, STOPPED, FINISHED, FAILED, NEVER_STARTED = "running", "stopped", "finished", "failed", "never started"
ROUTINE = (AttemptReserved.kind, CheckpointWritten.kind, AttemptEnded.kind)
"""Events of every run, which are no notes."""


@dataclass(frozen=True)
class LeaseHolder:
    """Who holds a run's lease, and until when in seconds since the epoch."""

    holder: str
    expires: float


@dataclass(frozen=True)
class SavedCheckpoint:
    """The newest checkpoint; `time` is None if it is not there though `latest.json` names it."""

    checkpoint: str
    images: int
    time: float | None


@dataclass(frozen=True)
class ScorePoint:
    """What best.json follows, after so many images: a Fréchet distance, or of points a mode distance."""

    images: int
    value: float


@dataclass(frozen=True)
class AttemptCounts:
    """Starts of the workers: all, those that went on after a stop, those after a failure, those that were planned."""

    starts: int
    resumed: int
    restarted: int
    moved: int
    """For a preemption or another number of workers."""
    workers: int | None
    """Of the last start."""
    time: float | None
    """Of the last start."""


@dataclass(frozen=True)
class RunStatus:
    """A run as its folder tells it; times are in seconds since the epoch."""

    name: str
    place: str
    state: str
    images: int
    """Shown so far: of a live run at its last tick, of others at the last checkpoint, where they would go on."""
    total_images: int
    config: dict[str, Any]
    """As its config.yaml says, unchecked: also a run of another version of ganrun can be shown and deleted."""
    lease: LeaseHolder | None
    latest: SavedCheckpoint | None
    last_score: ScorePoint | None
    best_score: ScorePoint | None
    attempts: AttemptCounts
    images_per_second: float | None
    """At the last tick."""
    notes: tuple[Line, ...]
    """Events but starts, stops and finishes."""
    spent: dict[str, float]
    """Seconds by part, `round`, `score` and others (time_breakdown.py); of a search none: its trials have them."""
    picture: str | None
    """The newest picture of samples."""
    bytes: int
    active: float
    """When it last wrote of itself."""
    faults: tuple[str, ...]
    """Records that are corrupt."""
    trials: int = 0
    """Of a search, which is shown as a run: its images are those that all of them have behind them. 0: a run."""


def read_status(storage: Storage) -> RunStatus:
    """Reads a run's state.

    Raises:
        UserError: the folder is not a run's.
        RunError: its config or its pointer is corrupt.
    """
    config = read_config(storage)
    holder, latest, objects = live_holder(storage), RunFolder(storage).pointer("latest"), storage.objects()
    curve, damaged = read_curve(storage)
    events, damaged_events = read_events(storage)
    total, saved_images = config["train"]["total_images"], latest.images if latest else 0
    ticked = curve[-1]["images"] if curve else 0
    scores = [
        ScorePoint(line["images"], value)
        for line in curve
        for name in DISTANCES
        if (value := line.get(name.key)) is not None
    ]
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
        best_score=min(scores, key=lambda score: score.value, default=None),
        attempts=_attempts(events),
        images_per_second=rates[-1] if rates else None,
        notes=_notes(events),
        spent=time_breakdown(curve, events),
        picture=f"{storage.uri}/samples/{pictures[-1]}" if pictures else None,
        bytes=sum(entry.bytes for entry in objects.values()),
        active=max([line["time"] for line in curve + events] or [objects["config.yaml"].modified]),
        faults=(*damaged, *damaged_events),
    )
    return _search(run, storage, objects) if SEARCH_FILE in objects else run


def _search(run: RunStatus, storage: Storage, objects: dict[str, Entry]) -> RunStatus:
    """A search by its lines and its best.json, whose checkpoint stands for the newest."""
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
    """The config of the run in this folder.

    Raises:
        UserError: the folder is not a run's.
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
    # Someone's own config beside their own files makes no run; a run that was moved has its events.
    begun = any(re.fullmatch(r"\d+\.jsonl", name) for name in storage.list("events"))
    if not begun and open_storage(home).uri != storage.uri:
        raise UserError(f"{storage.uri} is no run: it has no events, and its config.yaml is of a run at {home}")
    return config  # type: ignore[no-any-return]


def live_holder(storage: Storage) -> LeaseHolder | None:
    """Return the live holder of the run's lease, or None."""
    found = storage.read_version(Lease.NAME)
    if found is None:
        return None
    lease = Lease.parse(found[0])
    return LeaseHolder(lease["holder"], lease["expires"]) if Lease.is_live(lease, storage.now()) else None


def _state(holder: LeaseHolder | None, complete: bool, course: list[Line]) -> str:
    if holder:
        return RUNNING
    if complete:
        return FINISHED
    if not course:
        return NEVER_STARTED
    # A finish short of the total: the total was raised since.
    return FAILED if course[-1]["kind"] == AttemptStarted.kind else STOPPED


def _attempts(events: list[Line]) -> AttemptCounts:
    course = course_of(events)
    started = AttemptStarted.kind
    starts = [event for event in course if event["kind"] == started]
    pairs = [(earlier["kind"], later) for earlier, later in itertools.pairwise(course) if later["kind"] == started]
    last = starts[-1] if starts else {}
    again = [later.get("reason") or FAILURE for before, later in pairs if before == started]
    resumed, failed = len(pairs) - len(again), again.count(FAILURE)
    return AttemptCounts(len(starts), resumed, failed, len(again) - failed, last.get("workers"), last.get("time"))


def _notes(events: list[Line]) -> tuple[Line, ...]:
    course = course_of(events)
    damaged = [
        {"time": event["time"], "kind": "checkpoint_damaged", "message": fault}
        for event in course
        for fault in event.get("damaged", ())
    ]
    notes = [event for event in events if event not in course and event["kind"] not in ROUTINE]
    return tuple(sorted(damaged + notes, key=lambda note: float(note["time"])))


def _saved(latest: Pointer | None, objects: dict[str, Entry]) -> SavedCheckpoint | None:
    if latest is None:
        return None
    manifest = objects.get(f"checkpoints/{latest.checkpoint}/manifest.json")
    return SavedCheckpoint(latest.checkpoint, latest.images, manifest.modified if manifest else None)
