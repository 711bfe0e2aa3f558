"""What ends an attempt before the run's end, and how the next one, in the same processes, differs from it."""

from typing import Any, NamedTuple

from ganrun import checkpoint
from ganrun.run_folder import RunFolder
from ganrun.search.keys import scheduled, value_of, with_values
from ganrun.sections import Config
from ganrun.storage import open_storage


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


def donated(exploit: Exploit) -> checkpoint.Files:
    """The donor's checkpoint.

    Raises:
        RunError: it is damaged or gone.
    """
    return checkpoint.read(open_storage(exploit.donor), f"checkpoints/{exploit.checkpoint}")


def config_now(config: Config, files: checkpoint.Files, folder: RunFolder, exploit: Exploit | None) -> Config:
    """The config that an attempt begins with: hyper-parameters move while a run goes on.

    Args:
        config: of the run as it was started.
        files: of the checkpoint that it goes on from.
        folder: of the run.
        exploit: what is taken over now.
    """
    if exploit:
        return with_values(config, exploit.values)
    if config.tune and files:
        live = checkpoint.config_of(files, folder.storage.uri)
        return with_values(config, {key: value_of(live, key) for key in config.tune.mutations})
    return with_values(config, scheduled(config, checkpoint.images_of(files)))
