"""Checks of data, storage and hardware before a run starts. Imports no ray, and torch only for a config with GPUs."""

from collections.abc import Callable

from ganrun.config.ray_variables import cluster_address, session_folder
from ganrun.config.schema import ClusterConfig, Config, DataConfig, EvaluateConfig, ModelConfig
from ganrun.data.index import DataSet, open_data
from ganrun.errors import UserError
from ganrun.storage import check_rights, open_storage

PATIENCE_SECONDS = 10.0
"""Retry budget for storage requests. Short: before a run a storage that does not answer is more often misspelt than
down."""


def check(config: Config) -> None:
    """Check the config against data, storage and hardware.

    Raises:
        UserError: one message with all errors, a line each.
    """
    checks: list[Callable[[], None]] = [
        lambda: _check_data(config.data, config.model, config.evaluate, config.slots),
        lambda: check_rights(open_storage(config.run.storage, PATIENCE_SECONDS), "run.storage"),
        lambda: _check_gpus(config.cluster),
        _check_local_ray,
    ]
    faults = []
    for run_check in checks:
        try:
            run_check()
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join(faults))


def _check_data(settings: DataConfig, model: ModelConfig, evaluate: EvaluateConfig, slots: int) -> None:
    data = open_data(settings.shards, PATIENCE_SECONDS)
    for name, found in (("image_size", data.index.image_size), ("channels", data.index.channels)):
        if (wanted := getattr(settings, name)) != found:
            raise UserError(
                f"data.{name}: {wanted}, but the index of {settings.shards} says {found}; "
                f"set data.{name}={found}, or make the data set again with ganrun.prepare"
            )
    if model.classes and model.classes != len(data.index.classes):
        raise UserError(
            f"model.classes: {model.classes}, but the index of {settings.shards} names "
            f"{len(data.index.classes)} classes; set model.classes={len(data.index.classes)}"
        )
    if settings.fields["image"].kind == "point" and evaluate.every_images:
        _check_modes(settings, evaluate, data)
    if slots > data.index.samples:
        raise UserError(f"data.slots: {slots} is more than the {data.index.samples} samples of data.shards")
    _check_shards(data)


def _check_modes(settings: DataConfig, evaluate: EvaluateConfig, data: DataSet) -> None:
    from ganrun.evaluation.modes import MIXTURES, known_mixture  # With numpy, which other runs do without.

    if not known_mixture(data.index):
        raise UserError(
            f"evaluate.every_images: {evaluate.every_images}, but no modes are known of the points of "
            f"{settings.shards}; set it to 0, or make the data with ganrun prepare: {' or '.join(MIXTURES)}"
        )


def _check_shards(data: DataSet) -> None:
    for place in {place.uri: place for place in data.places}.values():
        there = set(place.list())
        for shard, where in zip(data.index.shards, data.places, strict=True):
            if where.uri == place.uri and shard.name not in there:
                raise UserError(
                    f"{place.uri}/{shard.name}: the index names this shard, but it does not exist; restore it"
                )


def _check_local_ray() -> None:
    if cluster_address() is None:
        session_folder()


def _check_gpus(cluster: ClusterConfig) -> None:
    if not cluster.gpus_per_worker or cluster_address():
        return
    import torch

    if (there := torch.cuda.device_count()) < cluster.fewest_workers:
        raise UserError(
            f"cluster.workers: {cluster.fewest_workers} with a GPU each, but this machine has {there}; "
            "take fewer, or cluster.gpus_per_worker=0, or name a cluster in RAY_ADDRESS"
        )
