"""What ends an attempt before the run's end, and how the next one differs from it."""

from typing import Any, NamedTuple


class Rollback(NamedTuple):
    """It diverged: the next one has other noise."""

    attempt: int
    rollback_count: int
    """Of the next one."""
    why: str


class ScheduleStep(NamedTuple):
    """It came to where `train.schedule` changes something: the next one has the new values."""

    attempt: int


class Exploit(NamedTuple):
    """Its trial is to take over another's state: the next one begins with that, and with new hyper-parameters."""

    number: int
    """Counts those of a search; a checkpoint knows the last one it has behind it."""
    donor: str
    """URI of its run."""
    checkpoint: str
    values: dict[str, Any]
    attempt: int | None = None
    """None for one that was ordered before this start of the workers."""


class Drain(NamedTuple):
    """Ray is to start the workers anew, elsewhere or as another number: the next one is in other processes."""

    attempt: int
    reason: str = ""
    """PREEMPTION or RESIZE, on rank 0."""
    why: str = ""
    """For people, on rank 0."""


class DrainedError(Exception):
    """What a worker ends with that was to leave: one that just returned would have finished."""


FAILURE, PREEMPTION, RESIZE = "failure", "preemption", "resize"


class Restart(NamedTuple):
    """Why the workers were started anew, and how many there were before."""

    reason: str
    """FAILURE, PREEMPTION or RESIZE."""
    workers: int
    why: str
    """For people; empty if they left, which they have told themselves."""


Transition = Rollback | ScheduleStep | Exploit | Drain
