"""Config of a run: checked against the config that the run began with, and written to its folder."""

import json

from ganrun.config.keys import differences
from ganrun.config.load import parse, with_own_defaults
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.config.schema import Config
from ganrun.config.validate_unused import without_unused
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.run_folder.run_folder import RunFolder, find_checkpoint

PATIENCE_SECONDS = 10.0
"""Retry budget for storage requests. Short: before a run a storage that does not answer is more often misspelt than
down."""


def settle(config: Config, folder: RunFolder) -> RunSpec:
    """Resolve a config, with the number of slots that the run began with if it has a checkpoint.

    Raises:
        UserError: the config changes a key that is fixed once the run has a checkpoint.
    """
    found = folder.storage.read_version("config.yaml")
    if not found or not folder.pointer("latest"):
        spec = resolve(config)
        if spec.run.start_from:
            find_checkpoint(spec.run.start_from)
        return spec
    # Keys that have come since have their defaults.
    before = with_own_defaults(without_unused(parse(found[0], f"{folder.storage.uri}/config.yaml")))
    spec = resolve(config, begun_slots=before.slots)
    _compare(resolve(before), spec, folder)
    _check_same_data(spec.data.shards, folder)
    return spec


def write_config(spec: RunSpec, folder: RunFolder) -> None:
    """Write a run's config.yaml.

    Raises:
        UserError: the storage refused it.
    """
    text, found = spec.to_yaml().encode(), folder.storage.read_version("config.yaml")
    if not found or found[0] != text:
        try:
            folder.storage.write("config.yaml", text)
        except OSError as error:
            raise UserError(f"run.storage: cannot write to {folder.storage.uri}: {error.strerror}") from error


def _compare(before: Config, spec: RunSpec, folder: RunFolder) -> None:
    if changed := differences(before, spec, fixed=True):
        listed = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
        raise UserError(
            f"{folder.storage.uri} was begun with another config: {listed}. These cannot change in a run: "
            f"change them back, choose another run.name, or delete it (ganrun runs delete {folder.storage.uri})"
        )
    if spec.cluster.most_workers > spec.slots:
        raise UserError(
            f"cluster.workers: {spec.cluster.most_workers} is more than the data.slots: {spec.slots} that "
            f"{folder.storage.uri} was begun with; lower it, or choose another run.name"
        )


def _check_same_data(shards: str | list[str], folder: RunFolder) -> None:
    """Raise UserError if the samples are not those that the run began with. The shards may have moved."""
    latest = folder.pointer("latest")
    manifest = folder.storage.read_version(f"checkpoints/{latest.checkpoint}/manifest.json") if latest else None
    try:
        before = json.loads(manifest[0])["data"] if manifest else None
    except (ValueError, KeyError, TypeError):
        return  # A corrupt checkpoint: the workers report it and resume from the one before.
    if before and before != open_data(shards, PATIENCE_SECONDS).index.fingerprint:
        raise UserError(
            f"data.shards: {shards} has other samples than {folder.storage.uri} was begun with; "
            "use the same data set, or choose another run.name"
        )
