"""The config of a run: settled against what the run began with, and written to its folder."""

import json

from ganrun.config.load import differences, parse
from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.run_folder.run_folder import RunFolder, find_checkpoint

PATIENCE_SECONDS = 10.0
"""A storage that does not answer before a run begins is more often misspelt than away."""


def settle(config: Config, folder: RunFolder) -> Config:
    """The config with what the run's beginning has fixed.

    Raises:
        UserError: it differs from the run's own in what cannot change once a run has a checkpoint.
    """
    found = folder.storage.read_version("config.yaml")
    if found and folder.pointer("latest"):
        before = parse(found[0], f"{folder.storage.uri}/config.yaml")
        if config.data.slots is None:
            config = with_slots(config, before.slots)
        _compare(before, config, folder)
        _check_same_data(config, folder)
    elif config.run.start_from:
        find_checkpoint(config.run.start_from)
    return with_slots(config, config.slots)


def write_config(config: Config, folder: RunFolder) -> None:
    """Writes a run's config.yaml.

    Raises:
        UserError: the storage does not take it.
    """
    text, found = config.to_yaml().encode(), folder.storage.read_version("config.yaml")
    if not found or found[0] != text:
        try:
            folder.storage.write("config.yaml", text)
        except OSError as error:
            raise UserError(f"run.storage: cannot write to {folder.storage.uri}: {error.strerror}") from error


def _compare(before: Config, config: Config, folder: RunFolder) -> None:
    if changed := differences(before, config, fixed=True):
        listed = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
        raise UserError(
            f"{folder.storage.uri} was begun with another config: {listed}. These cannot change in a run: "
            f"change them back, choose another run.name, or delete it (ganrun runs delete {folder.storage.uri})"
        )
    if config.cluster.most_workers > config.slots:
        raise UserError(
            f"cluster.workers: {config.cluster.most_workers} is more than the data.slots: {config.slots} that "
            f"{folder.storage.uri} was begun with; take at most so many, or begin another run.name"
        )


def _check_same_data(config: Config, folder: RunFolder) -> None:
    """The shards may have moved, but a run goes on with the same samples."""
    latest = folder.pointer("latest")
    manifest = folder.storage.read_version(f"checkpoints/{latest.checkpoint}/manifest.json") if latest else None
    try:
        before = json.loads(manifest[0])["data"] if manifest else None
    except (ValueError, KeyError, TypeError):
        return  # A damaged checkpoint: the workers will say so, and take the one before it.
    if before and before != open_data(config.data.shards, PATIENCE_SECONDS).index.fingerprint:
        raise UserError(
            f"data.shards: {config.data.shards} holds other samples than {folder.storage.uri} was begun with; "
            "name the same data set, or choose another run.name"
        )


def with_slots(config: Config, slots: int) -> Config:
    """The config with so many slots.

    Raises:
        UserError: the batch cannot be cut into them.
    """
    if config.data.batch_size % slots:
        raise UserError(
            f"data.batch_size: {config.data.batch_size} cannot be cut into as many data.slots as there are "
            f"cluster.workers: {slots}; take a multiple, or set data.slots"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"slots": slots})})
