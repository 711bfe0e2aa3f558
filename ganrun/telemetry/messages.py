"""Messages between worker, driver and search, a class each.

Workers send `Event`s to the driver, which answers with `Command`s. Receivers `match` on the class and end with
`assert_never`, or with a default that says "not ours". Records that are on disk, too, are in records.py; what a sidecar
is told is in run_report.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from ganrun.telemetry.records import Emitted, Message

FAILURE: Final = "failure"
PREEMPTION: Final = "preemption"
RESIZE: Final = "resize"
RESUME: Final = "resume"
RESTART_REASONS: Final = (FAILURE, PREEMPTION, RESIZE, RESUME)
TRIAL_STATES: Final = ("pending", "running", "paused", "finished", "failed")


# Worker -> driver, and not on disk.


@dataclass(frozen=True)
class WorkersStarted(Message, kind="started"):
    """The workers are up and have their checkpoint."""

    images: int
    workers: int
    faults: list[str] = field(default_factory=list)
    """Damaged checkpoints that were passed over."""
    exploit: int = 0
    """Number of the newest exploit in the checkpoint."""
    before: int | None = None
    """Number of workers before a restart."""
    reason: str | None = None
    """Reason of a restart by Ray, one of RESTART_REASONS; None for the first start of a command."""


@dataclass(frozen=True)
class Progress(Message, kind="images"):
    """Images shown after a round."""

    images: int


@dataclass(frozen=True)
class Tick(Message, kind="tick"):
    """Metrics since the last tick, by the names that series.py reads."""

    images: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class ScoreTaken(Message, kind="score"):
    """A score of the EMA generator."""

    images: int
    name: str
    value: float | None
    """Distance that best.json follows; None if it is not finite."""
    values: Mapping[str, float | None]
    """The distance and every other metric of evaluate.metrics."""
    extractor: str | None
    samples: int
    best: bool = False


@dataclass(frozen=True)
class SamplesDrawn(Message, kind="picture"):
    """Samples of the EMA generator as PNG."""

    images: int
    png: bytes
    diversity: float


@dataclass(frozen=True)
class Note(Message, kind="note"):
    """A line for people."""

    text: str


@dataclass(frozen=True)
class LastScoresAwaited(Message, kind="last_call"):
    """Training is over but for scores that evaluation tasks still owe."""


@dataclass(frozen=True)
class Restart(Message, kind="restart"):
    """Ray starts the workers again."""

    reason: str
    """FAILURE, PREEMPTION or RESIZE."""
    workers: int
    """Number of workers before."""
    why: str
    """For people; empty if they were drained, which they have announced themselves."""


@dataclass(frozen=True)
class Finished(Message, kind="finished"):
    """The run has all its images. One of the three last events of a run."""

    images: int


@dataclass(frozen=True)
class Stopped(Message, kind="stopped"):
    """The workers were asked to stop and have saved."""

    images: int


@dataclass(frozen=True)
class Failed(Message, kind="failed"):
    """The run cannot go on."""

    text: str
    wrong_input: bool
    """True for a fault of the user's input, exit code 2."""


# Driver -> worker.


@dataclass(frozen=True)
class ScoreFound(Message, kind="score_found"):
    """Answer to `ScoreWanted`."""

    images: int
    checkpoint: str
    score: Mapping[str, Any] | None
    """`evaluation.score.Score.to_json()`; None if there is none."""
    why: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class Exploit(Message, kind="exploit"):
    """A trial is to go on from a donor's checkpoint with new hyper-parameters."""

    number: int
    """Count of exploits in the search; a checkpoint keeps the newest that it has taken part in."""
    donor: str
    """URI of the donor's run."""
    checkpoint: str
    values: dict[str, Any]
    attempt: int | None = None
    """Attempt that it ends; None if it was decided before the workers started."""


@dataclass(frozen=True)
class ReleaseCheckpoints(Message, kind="release"):
    """No trial takes over checkpoints named below `before` any more, but for those in `keep`."""

    before: str
    keep: list[str]


@dataclass(frozen=True)
class DrainWorkers(Message, kind="drain"):
    """The workers are to save and leave, since Ray starts them elsewhere or as another number."""

    reason: str
    why: str


# A search.


@dataclass(frozen=True)
class TrialFailed(Message, kind="trial_failed"):
    """A trial failed, as the scheduler tells those who watch the search."""

    text: str


@dataclass(frozen=True)
class TrialReport(Message, kind="report"):
    """A trial's score at the end of an interval; `checkpoint` is its state there."""

    trial: str
    interval: int
    images: int
    score: float | None
    checkpoint: str | None
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Hyper-parameters in that interval."""


@dataclass(frozen=True)
class TrialExploit(Message, kind="exploit"):
    """A trial takes over a donor's state at the end of an interval, and goes on with `after`."""

    number: int
    trial: str
    donor: str
    interval: int
    images: int
    checkpoint: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class SearchEnded(Message, kind="end"):
    """The search is over; `best` is the trial with the best score."""

    best: str | None = None


Ending = Finished | Stopped | Failed
"""Last event of a run."""
Event = (
    WorkersStarted | Progress | Tick | ScoreTaken | SamplesDrawn | Note | LastScoresAwaited | Restart | Emitted | Ending
)
Command = ScoreFound | Exploit | ReleaseCheckpoints | DrainWorkers
SearchRecord = TrialReport | TrialExploit | SearchEnded
"""Line of search.jsonl."""
ENDINGS: tuple[type[Ending], ...] = get_args(Ending)
SEARCH_RECORDS: tuple[type[SearchRecord], ...] = get_args(SearchRecord)
