"""Checks of data, storage and hardware before a run starts. Imports no ray, and torch only for a config with GPUs."""

import os
from collections.abc import Sequence

from ganrun.config.registry import is_script
from ganrun.config.schema import Config
from ganrun.data.index import INDEX_NAME, DataSet, Index, open_data
from ganrun.data.shard import EXTENSIONS
from ganrun.errors import UserError
from ganrun.storage import INDEX_BYTES, check_rights, open_storage

PATIENCE_SECONDS = 10.0
"""Retry budget for storage requests. Short: before a run a storage that does not answer is more often misspelt than
down."""


def check(config: Config) -> None:
    """Check the config against data, storage and hardware.

    Raises:
        UserError: one message with all errors, a line each.
    """
    faults = []
    for check_part in (_check_data, _check_storage, _check_gpus):
        try:
            check_part(config)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join(faults))


def absolute(config: Config) -> Config:
    """Return the config with absolute paths, since workers have another working directory."""
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


def _check_data(config: Config) -> None:
    data = open_data(config.data.shards, PATIENCE_SECONDS)
    for name, found in (("image_size", data.index.image_size), ("channels", data.index.channels)):
        if (wanted := getattr(config.data, name)) != found:
            raise UserError(
                f"data.{name}: {wanted}, but the index of {config.data.shards} says {found}; "
                f"set data.{name}={found}, or make the data set again with ganrun prepare"
            )
    if config.model.classes and config.model.classes != len(data.index.classes):
        raise UserError(
            f"model.classes: {config.model.classes}, but the index of {config.data.shards} names "
            f"{len(data.index.classes)} classes; set model.classes={len(data.index.classes)}"
        )
    if config.data.fields["image"].kind == "point" and config.evaluate.every_images:
        _check_modes(config, data)
    if config.slots > data.index.samples:
        raise UserError(
            f"data.slots: {config.slots}, but data.shards has only {data.index.samples} samples; "
            f"set at most data.slots={data.index.samples}"
        )
    _check_shards(data)
    _check_fields(config, data)


def _check_modes(config: Config, data: DataSet) -> None:
    from ganrun.evaluation.modes import MIXTURES, known_mixture  # imports numpy, needed for points only

    if not known_mixture(data.index):
        raise UserError(
            f"evaluate.every_images: {config.evaluate.every_images}, but the modes of the points in "
            f"{config.data.shards} are unknown; set it to 0, or use data of ganrun prepare {' or '.join(MIXTURES)}"
        )


def _check_shards(data: DataSet) -> None:
    for place in {place.uri: place for place in data.places}.values():
        there = set(place.list())
        for shard, where in zip(data.index.shards, data.places, strict=True):
            if where.uri == place.uri and shard.name not in there:
                raise UserError(
                    f"{place.uri}/{shard.name}: the index names this shard, but it does not exist; restore it"
                )


def _check_fields(config: Config, data: DataSet) -> None:
    """Refuse a field that more samples lack, by the counts that ganrun prepare records, than may be damaged."""
    for place in {place.uri: place for place in data.places}.values():
        index = Index.from_json(place.read(INDEX_NAME, INDEX_BYTES), f"{place.uri}/{INDEX_NAME}")
        if sum(where.uri == place.uri for where in data.places) < len(index.shards):
            continue  # Which of the shards have the samples in question is not recorded.
        for name, field in config.data.fields.items():
            there = _samples_with(index, (field.extension,) if field.extension else EXTENSIONS[field.kind])
            if there is not None and index.samples - there > config.data.damaged_share * index.samples:
                raise UserError(
                    f"data.fields.{name}: {field.kind}, but {index.samples - there:,} of {index.samples:,} samples in "
                    f"{place.uri} have none; "
                    "complete the data set and prepare it again, or remove the field"
                )


def _samples_with(index: Index, extensions: Sequence[str]) -> int | None:
    """Return the number of samples with a member of one of these extensions; None if it is not recorded."""
    members = index.made.get("members")
    if not isinstance(members, dict):  # ganrun 0.2 recorded only the labels.
        members = {"cls": sum(index.made.get("images_of_class", ()))}
        if not members["cls"] or tuple(extensions) != ("cls",):
            return None
    there: int = sum(members.get(extension, 0) for extension in extensions)
    return None if set(extensions) & set(EXTENSIONS["image"]) else there


def _check_storage(config: Config) -> None:
    check_rights(open_storage(config.run.storage, PATIENCE_SECONDS), "run.storage")


def _check_gpus(config: Config) -> None:
    if not config.cluster.gpus_per_worker or "RAY_ADDRESS" in os.environ:
        return
    import torch

    if (there := torch.cuda.device_count()) < config.cluster.fewest_workers:
        raise UserError(
            f"cluster.workers: {config.cluster.fewest_workers} with a GPU each, but this machine has {there}; "
            "use fewer workers, set cluster.gpus_per_worker=0, or set RAY_ADDRESS to a cluster"
        )
