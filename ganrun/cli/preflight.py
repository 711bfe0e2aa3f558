"""What is checked and settled before a run costs anything. Imports neither ray nor, without GPUs, torch."""

import json
import os

from ganrun.config.load import differences, parse
from ganrun.config.registry import is_script
from ganrun.config.schema import Config
from ganrun.data.index import DataSet, open_data
from ganrun.errors import UserError
from ganrun.run_folder.layout import RunFolder, find_checkpoint
from ganrun.storage import check_rights, open_storage

PATIENCE_SECONDS = 10.0
"""A storage that does not answer before a run begins is more often misspelt than away."""


def check(config: Config) -> None:
    """Checks data, storage and hardware against the config.

    Raises:
        UserError: all that is wrong, in one message.
    """
    faults = []
    for what in (_check_data, _check_storage, _check_gpus):
        try:
            what(config)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join(faults))


def absolute(config: Config) -> Config:
    """The config with relative paths made absolute here: workers have other working directories."""
    shards = config.data.shards
    paths = _absolute(shards) if isinstance(shards, str) else [_absolute(shard) for shard in shards]
    places = {"storage": config.run.storage, "start_from": config.run.start_from}
    run = config.run.model_copy(update={key: place and _absolute(place) for key, place in places.items()})
    evaluate = config.evaluate
    weights, extractor = evaluate.extractor_weights, evaluate.extractor
    places = {
        "extractor": _absolute(extractor) if is_script(extractor) else extractor,
        "extractor_weights": weights and _absolute(weights),
    }
    updates = {
        "run": run,
        "data": config.data.model_copy(update={"shards": paths}),
        "evaluate": evaluate.model_copy(update=places),
    }
    return config.model_copy(update=updates)


def _absolute(place: str) -> str:
    return place if "://" in place or place.startswith("package:") else os.path.abspath(os.path.expanduser(place))


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


def _check_data(config: Config) -> None:
    data = open_data(config.data.shards, PATIENCE_SECONDS)
    for name, found in (("image_size", data.index.image_size), ("channels", data.index.channels)):
        if (wanted := getattr(config.data, name)) != found:
            raise UserError(
                f"data.{name}: {wanted}, but the index of {config.data.shards} says {found}; "
                f"set data.{name}={found}, or make the data set again with ganrun.prepare"
            )
    if config.model.classes and config.model.classes != len(data.index.classes):
        raise UserError(
            f"model.classes: {config.model.classes}, but the index of {config.data.shards} names "
            f"{len(data.index.classes)} classes; set model.classes={len(data.index.classes)}"
        )
    if config.data.fields["image"].kind == "point" and config.evaluate.every_images:
        _check_modes(config, data)
    if config.slots > data.index.samples:
        raise UserError(f"data.slots: {config.slots} is more than the {data.index.samples} samples of data.shards")
    _check_shards(data)


def _check_modes(config: Config, data: DataSet) -> None:
    from ganrun.evaluation.modes import MIXTURES, known_mixture  # With numpy, which other runs do not wait for.

    if not known_mixture(data.index):
        raise UserError(
            f"evaluate.every_images: {config.evaluate.every_images}, but no modes are known of the points of "
            f"{config.data.shards}; set it to 0, or make the data with ganrun prepare: {' or '.join(MIXTURES)}"
        )


def _check_shards(data: DataSet) -> None:
    for place in {place.uri: place for place in data.places}.values():
        there = set(place.list())
        for shard, where in zip(data.index.shards, data.places, strict=True):
            if where.uri == place.uri and shard.name not in there:
                raise UserError(f"{place.uri}/{shard.name}: the index names this shard, but it is not there")


def _check_storage(config: Config) -> None:
    check_rights(open_storage(config.run.storage, PATIENCE_SECONDS), "run.storage")


def _check_gpus(config: Config) -> None:
    if not config.cluster.gpus_per_worker or "RAY_ADDRESS" in os.environ:
        return
    import torch

    if (there := torch.cuda.device_count()) < config.cluster.fewest_workers:
        raise UserError(
            f"cluster.workers: {config.cluster.fewest_workers} with a GPU each, but this machine has {there}; "
            "take fewer, or cluster.gpus_per_worker=0, or name a cluster in RAY_ADDRESS"
        )
