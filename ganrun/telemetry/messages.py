"""Messages between worker, driver and search: one class per kind.

Workers send `Event`s to the driver, which answers with `Command`s. Receivers `match` on the class and end with
`assert_never`, or with a default case marked "not ours". Messages that are also records on disk are in records.py.
Reports to a sidecar are in run_report.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

from ganrun.telemetry.records import Emitted, Message

FAILURE: Final = "failure"
PREEMPTION: Final = "preemption"
RESIZE: Final = "resize"
RESUME: Final = "resume"
RESTART_REASONS: Final = (FAILURE, PREEMPTION, RESIZE, RESUME)
TRIAL_STATES: Final = ("pending", "running", "paused", "finished", "failed")


# Worker -> driver, not on disk.


@dataclass(frozen=True)
class WorkersStarted(Message, kind="started"):
    """The workers have started and loaded their checkpoint."""

    images: int
    workers: int
    faults: list[str] = field(default_factory=list)
    """Faults of corrupt checkpoints that were skipped."""
    exploit: int = 0
    """Number of the newest exploit in the checkpoint."""
    before: int | None = None
    """Number of workers before a restart."""
    reason: str | None = None
    """Reason of a restart by Ray, one of RESTART_REASONS; None for the first start of a command."""
    failures: int = 0
    """Number of failures since the command began after which Ray started the workers again."""


@dataclass(frozen=True)
class Progress(Message, kind="images"):
    """Images shown after a round."""

    images: int


@dataclass(frozen=True)
class Tick(Message, kind="tick"):
    """Means and sums since the last tick, by metric key (series.py)."""

    images: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class ScoreTaken(Message, kind="score"):
    """Score of the EMA generator."""

    images: int
    name: str
    value: float | None
    """The distance; None if it is not finite."""
    values: Mapping[str, float | None]
    """The distance and all other metrics of evaluate.metrics; None where a value is not finite."""
    extractor: str | None
    samples: int
    best: bool = False
    """True for the best value of `followed` so far."""
    followed: str = "distance"
    """Name of the score that best.json follows, `evaluate.best.metric`."""


@dataclass(frozen=True)
class SamplesDrawn(Message, kind="picture"):
    """Samples of the EMA generator as PNG."""

    images: int
    png: bytes
    diversity: float


class SamplePicture(NamedTuple):
    """Samples of the EMA networks, a class in each column, or condition, sample and truth side by side."""

    png: bytes
    """For the run's folder."""
    message: SamplesDrawn
    """The same for the driver, or a smaller one if it exceeds what a sidecar accepts."""


@dataclass(frozen=True)
class Note(Message, kind="note"):
    """Line for the terminal and the page."""

    text: str


@dataclass(frozen=True)
class LastScoresAwaited(Message, kind="last_call"):
    """Training is complete except for scores that evaluation tasks have not returned yet."""


@dataclass(frozen=True)
class Restart(Message, kind="restart"):
    """Ray restarts the workers."""

    reason: str
    """FAILURE, PREEMPTION or RESIZE."""
    workers: int
    """Number of workers before the restart."""
    why: str
    """Cause in words; empty after a drain, which the workers have announced themselves."""
    failures: int = 0
    """Number of restarts after a failure since the command began, this one included."""


@dataclass(frozen=True)
class Finished(Message, kind="finished"):
    """The run has shown all its images."""

    images: int


@dataclass(frozen=True)
class Stopped(Message, kind="stopped"):
    """The workers were asked to stop and have saved a checkpoint."""

    images: int


@dataclass(frozen=True)
class Failed(Message, kind="failed"):
    """The run cannot continue."""

    text: str
    wrong_input: bool
    """True for an error in the user's input: exit code 2."""


# Driver -> worker.


@dataclass(frozen=True)
class ScoreFound(Message, kind="score_found"):
    """Answer to `ScoreWanted`."""

    images: int
    checkpoint: str
    score: Mapping[str, Any] | None
    """`evaluation.evaluation.Evaluation.to_json()`; None if there is no score."""
    why: str = ""
    """Why there is no score; empty if there is one."""
    picture: SamplePicture | None = None
    """Samples, of a game whose samples are slow."""


@dataclass(frozen=True)
class Exploit(Message, kind="exploit"):
    """Order to a trial to continue from a donor's checkpoint with new hyper-parameters."""

    number: int
    """Number of the exploit in the search. A checkpoint keeps that of its newest exploit."""
    donor: str
    """URI of the donor's run."""
    checkpoint: str
    values: dict[str, Any]
    attempt: int | None = None
    """Attempt that the exploit ends; None if it was decided before the workers started."""


@dataclass(frozen=True)
class ReleaseCheckpoints(Message, kind="release"):
    """Permission to delete checkpoints named below `before`, except those in `keep`: no trial will copy them."""

    before: str
    keep: list[str]


@dataclass(frozen=True)
class DrainWorkers(Message, kind="drain"):
    """Order to save and exit, after which Ray restarts the workers on other nodes or in another number."""

    reason: str
    why: str


# A search.


@dataclass(frozen=True)
class TrialFailed(Message, kind="trial_failed"):
    """A trial failed. Sent by the scheduler to the observers of the search."""

    text: str


@dataclass(frozen=True)
class TrialReport(Message, kind="report"):
    """Score and checkpoint of a trial at the end of an interval."""

    trial: str
    interval: int
    images: int
    score: float | None
    checkpoint: str | None
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Hyper-parameters of that interval."""


@dataclass(frozen=True)
class TrialExploit(Message, kind="exploit"):
    """A trial copies a donor's checkpoint at the end of an interval and continues with hyper-parameters `after`."""

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
    """The search is complete; `best` is the trial with the best score, None if no trial has one.

    `score` is that of its best checkpoint by `evaluate.samples`, as checkpoints keep it; None without `tune.samples`.
    """

    best: str | None = None
    score: dict[str, Any] | None = None


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
