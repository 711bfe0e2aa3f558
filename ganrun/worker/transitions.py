"""What ends an attempt before the run's end, and how the next one differs from it."""

from typing import NamedTuple

from ganrun.telemetry.messages import Exploit


class Rollback(NamedTuple):
    """It diverged: the next one has other noise."""

    attempt: int
    rollback_count: int
    """Of the next one."""
    why: str


class ScheduleStep(NamedTuple):
    """It came to where `train.schedule` changes something: the next one has the new values."""

    attempt: int


class Drain(NamedTuple):
    """Ray is to start the workers anew, elsewhere or as another number: the next one is in other processes."""

    attempt: int
    reason: str = ""
    """PREEMPTION or RESIZE, on rank 0."""
    why: str = ""
    """For people, on rank 0."""


class DrainedError(Exception):
    """What a worker ends with that was to leave: one that just returned would have finished."""


Transition = Rollback | ScheduleStep | Exploit | Drain
