"""From a config as it was written to the run that it describes on this machine."""

import os

from ganrun.config.registry import is_script
from ganrun.config.schema import Config
from ganrun.errors import UserError


class RunSpec(Config):
    """A run, a trial or a search as it is trained: its paths are absolute and its slots are set.

    `resolve` makes one of a `Config`, which is what the user wrote. Launch, workers and trials take this one.
    """


def resolve(config: Config, begun_slots: int | None = None) -> RunSpec:
    """Return the run of a config: relative paths become absolute here, since workers have other working directories.

    Args:
        config: as it was written.
        begun_slots: slots of the run if it has begun. They count where the config has none; of a new run, the most
            workers count.

    Raises:
        UserError: the batch does not divide by the slots.
    """
    slots = config.data.slots or begun_slots or config.slots
    if config.data.batch_size % slots:
        raise UserError(
            f"data.batch_size: {config.data.batch_size} cannot be cut into as many data.slots as there are "
            f"cluster.workers: {slots}; take a multiple, or set data.slots"
        )
    run, data, evaluate = config.run, config.data, config.evaluate
    run = run.model_copy(
        update={"storage": _absolute(run.storage), "start_from": run.start_from and _absolute(run.start_from)}
    )
    shards = _absolute(data.shards) if isinstance(data.shards, str) else [_absolute(each) for each in data.shards]
    extractor, weights = evaluate.extractor, evaluate.extractor_weights
    evaluate = evaluate.model_copy(
        update={
            "extractor": _absolute(extractor) if is_script(extractor) else extractor,
            "extractor_weights": weights and _absolute(weights),
        }
    )
    sections = {name: getattr(config, name) for name in Config.model_fields}
    sections |= {"run": run, "data": data.model_copy(update={"shards": shards, "slots": slots}), "evaluate": evaluate}
    return RunSpec(**sections)


def _absolute(place: str) -> str:
    return place if "://" in place or place.startswith("package:") else os.path.abspath(os.path.expanduser(place))
