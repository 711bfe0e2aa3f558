"""Transitions: reasons to end an attempt before the run ends, each with what differs in the next attempt."""

from typing import NamedTuple

from ganrun.telemetry.messages import Exploit


class Rollback(NamedTuple):
    """The run diverged: the next attempt resumes from the last checkpoint with new noise."""

    attempt: int
    rollback_count: int
    """Rollback count of the next attempt."""
    why: str


class ScheduleStep(NamedTuple):
    """The run reached a step of `train.schedule`: the next attempt has the new values."""

    attempt: int


class Drain(NamedTuple):
    """Ray is to restart the workers, on other nodes or with another number: the next attempt is in other processes."""

    attempt: int
    reason: str = ""
    """PREEMPTION or RESIZE, on rank 0."""
    why: str = ""
    """Reason in words, on rank 0."""


class DrainedError(Exception):
    """Raised by a worker that was drained: one that returns counts as finished."""


Transition = Rollback | ScheduleStep | Exploit | Drain
