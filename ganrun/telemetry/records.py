"""Lines on disk, one class per kind: events/*.jsonl here, search.jsonl in messages.py.

A line has the kind of its message and the fields. Records that workers also send to the driver are `Emitted`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, get_args


@dataclass(frozen=True)
class Message:
    """Base of all messages. Picklable; fields are plain values."""

    kind: ClassVar[str]
    """Name of the kind on disk."""

    def __init_subclass__(cls, kind: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind:
            cls.kind = kind

    def to_line(self) -> dict[str, Any]:
        """Return the JSON object of a line on disk. The time, if there is one, and the kind come first."""
        content = vars(self)
        head = {"time": content["time"]} if "time" in content else {}
        return {**head, "kind": self.kind, **content}


@dataclass(frozen=True, kw_only=True)
class Timed(Message):
    """Base of lines of events/*.jsonl."""

    time: float = field(default_factory=time.time)
    """Seconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class Record(Timed):
    """Base of events at a point of the run."""

    images: int
    """Images shown before the event."""


@dataclass(frozen=True, kw_only=True)
class Announcement(Record):
    """Base of events that the driver also writes to its terminal."""

    message: str


@dataclass(frozen=True, kw_only=True)
class OfAttempt(Record):
    """Base of events that begin an attempt. The fields are those of `worker.resume.AttemptStart`."""

    attempt: int
    rollback_count: int
    checkpoint: str | None
    damaged: list[str]
    """Faults of newer checkpoints, which were skipped."""
    donor: str | None = None
    """URI of the run that the checkpoint is from; None if it is from this run."""


# Also sent to the driver.


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten(Record, kind="checkpoint"):
    """A checkpoint is complete and latest.json points to it."""

    checkpoint: str
    bytes: int
    blocked_seconds: float
    upload_seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckpointFailed(Announcement, kind="checkpoint_failed"):
    """A checkpoint could not be written; the write is retried."""


@dataclass(frozen=True, kw_only=True)
class CheckpointDropped(Record, kind="checkpoint_dropped"):
    """A newer checkpoint replaced one that waited to be written."""


@dataclass(frozen=True, kw_only=True)
class BestNotMoved(Announcement, kind="best_failed"):
    """best.json could not be written; the write is retried."""


@dataclass(frozen=True, kw_only=True)
class DeletionFailed(Announcement, kind="delete_failed"):
    """An old checkpoint could not be deleted."""


@dataclass(frozen=True, kw_only=True)
class ScoreWanted(Record, kind="score_wanted"):
    """A checkpoint is to be scored by an evaluation task."""

    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class ScoreFailed(Announcement, kind="score_failed"):
    """An evaluation task returned no score."""


@dataclass(frozen=True, kw_only=True)
class ProfileEnded(Announcement, kind="profile"):
    """The profile is written, or the run was too short for one."""

    files: list[str]


@dataclass(frozen=True, kw_only=True)
class CollapseSuspected(Announcement, kind="collapse_suspected"):
    """A symptom of collapse began."""

    symptom: str


@dataclass(frozen=True, kw_only=True)
class RolledBack(OfAttempt, Announcement, kind="rollback"):
    """An attempt began at the last good checkpoint, with other noise."""


@dataclass(frozen=True, kw_only=True)
class ScheduleStepped(OfAttempt, kind="schedule"):
    """An attempt began with the next values of train.schedule."""

    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exploited(OfAttempt, kind="exploit"):
    """An attempt of a trial began at a donor's checkpoint."""

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DrainBegun(Announcement, kind="leave"):
    """The workers save a checkpoint and exit, so that Ray can restart them."""

    reason: str


# On disk only.


@dataclass(frozen=True, kw_only=True)
class CommandDied(Timed, kind="died"):
    """The process that ran the run was killed, or its machine was lost. Written by the command that finds its lease."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Resized(Announcement, kind="resize"):
    """The number of workers changed."""

    workers: int
    before: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttemptReserved(Timed, kind="attempt"):
    """First line of a file. From now on this attempt owns the run, and older ones must not write."""

    rollback_count: int


@dataclass(frozen=True, kw_only=True)
class AttemptStarted(OfAttempt, kind="start"):
    """Workers began an attempt, started by a command or restarted by Ray."""

    workers: int
    before: int | None
    reason: str | None
    why: str | None
    left_over: int
    failures: int = 0
    """Number of failures since the command began after which Ray started the workers again."""


@dataclass(frozen=True, kw_only=True)
class AttemptEnded(Record, kind="left"):
    """An attempt ended and the run continues in the next one."""

    spent: Mapping[str, float]
    """Seconds by part since the last tick."""


@dataclass(frozen=True, kw_only=True)
class WeightsUnfit(Timed, kind="start_from"):
    """Weights of run.start_from that did not fit."""

    where: str
    unfit: list[str]


@dataclass(frozen=True, kw_only=True)
class RunFailed(Record, kind="failed"):
    """The run cannot continue."""

    message: str
    traceback: str = ""
    """Of a fault in the user's own code."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Record, kind="finish"):
    """The run has shown all its images."""

    spent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunStopped(Record, kind="stop"):
    """The workers were asked to stop and have saved a checkpoint."""

    spent: Mapping[str, float] = field(default_factory=dict)


Emitted = (
    CheckpointWritten
    | CheckpointFailed
    | CheckpointDropped
    | BestNotMoved
    | DeletionFailed
    | ScoreWanted
    | ScoreFailed
    | ProfileEnded
    | CollapseSuspected
    | RolledBack
    | ScheduleStepped
    | Exploited
    | DrainBegun
)
"""Event that is also a line of events/*.jsonl."""
EventRecord = (
    AttemptReserved
    | AttemptStarted
    | AttemptEnded
    | CommandDied
    | Resized
    | WeightsUnfit
    | RunFailed
    | RunFinished
    | RunStopped
    | Emitted
)
"""Line of events/*.jsonl."""
EVENT_RECORDS: tuple[type[EventRecord], ...] = get_args(EventRecord)
OLD_FIELDS = {"generation": "rollback_count", "sign": "symptom"}
"""Fields that format 1 called by another name, with today's."""
AnyMessage = TypeVar("AnyMessage", bound=Message)


def read_record(line: Mapping[str, Any], classes: tuple[type[AnyMessage], ...]) -> AnyMessage | None:
    """Parse a line into the class that has its kind; None if no class has.

    Raises:
        TypeError: a field is missing.
    """
    content = {OLD_FIELDS.get(name, name): value for name, value in line.items()}
    for each in classes:
        if each.kind == line["kind"]:
            return each(**{one.name: content[one.name] for one in fields(each) if one.name in content})
    return None
