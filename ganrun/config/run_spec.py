"""Resolved config of a run: absolute paths, slots and decoder set."""

import os

from ganrun.config.registry import is_script
from ganrun.config.schema import Config
from ganrun.config.validate_parts import direction
from ganrun.errors import UserError
from ganrun.storage import expand_user


class RunSpec(Config):
    """Config of a run, trial or search, resolved: paths are absolute, `data.slots` and `data.decode` are set.

    `resolve` makes one from a `Config`, which is as the user wrote it. Launch, workers and trials take a `RunSpec`.
    """


def resolve(config: Config, begun_slots: int | None = None) -> RunSpec:
    """Resolve a config. Relative paths become absolute, since workers have other working directories.

    Args:
        config: the config as written.
        begun_slots: slots of a run that has begun, used if the config sets none. Default: the most workers.

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
    shards, objective = _absolute_all(data.shards), config.objective
    extractor, weights = evaluate.extractor, evaluate.extractor_weights
    best, tune = evaluate.best, config.tune
    evaluate = evaluate.model_copy(
        update={
            "best": best.model_copy(update={"mode": direction(best.metric, best.mode)}),
            "extractor": _absolute(extractor) if is_script(extractor) else extractor,
            "extractor_weights": weights and _absolute(weights),
            "matcher": evaluate.matcher and _absolute(evaluate.matcher),
            "shards": evaluate.shards and _absolute_all(evaluate.shards),
        }
    )
    tune = tune and tune.model_copy(update={"mode": direction(tune.metric, tune.mode)})
    sections = {name: getattr(config, name) for name in Config.model_fields}
    sections |= {
        "tune": tune,
        "run": run,
        "objective": objective.model_copy(update={"of": objective.of and _absolute(objective.of)}),
        "data": data.model_copy(
            update={"shards": shards, "slots": slots, "decode": "cpu" if data.decode == "auto" else data.decode}
        ),
        "evaluate": evaluate,
    }
    return RunSpec(**sections)


def _absolute_all(places: str | list[str]) -> str | list[str]:
    return _absolute(places) if isinstance(places, str) else [_absolute(each) for each in places]


def _absolute(place: str) -> str:
    return place if "://" in place or place.startswith("package:") else os.path.abspath(expand_user(place))
