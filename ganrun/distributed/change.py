"""What ends an attempt before the run's end, and how the next one, in the same processes, differs from it."""

from typing import Any, NamedTuple


class Rollback(NamedTuple):
    """It diverged: the next one has other noise."""

    attempt: int
    generation: int
    """Of the next one."""
    why: str


class Turn(NamedTuple):
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


Change = Rollback | Turn | Exploit
