"""Config of a trial as a run, and of a run that replays a trial's lineage."""

from collections.abc import Sequence

from ganrun.config.run_spec import RunSpec
from ganrun.config.tunable import Values, with_values
from ganrun.config.validate_unused import without_unused
from ganrun.tuning.population import Segment


def trial_config(search: RunSpec, trial: str, values: Values) -> RunSpec:
    """Return the run of a trial, with its own seed, scores of `tune.samples`, and a checkpoint at every score."""
    assert search.tune is not None
    run = search.run.model_copy(
        update={
            "storage": f"{search.run.uri}/trials",
            "name": trial,
            "seed": search.run.seed + int(trial),
        }
    )
    every, scored = search.checkpoint.every_images, search.evaluate.every_images
    if not every or scored % every:
        every = scored
    checkpoint = search.checkpoint.model_copy(update={"every_images": every})
    evaluate = search.evaluate.model_copy(update={"samples": search.tune.samples or search.evaluate.samples})
    return with_values(search.model_copy(update={"run": run, "checkpoint": checkpoint, "evaluate": evaluate}), values)


def schedule_config(search: RunSpec, lineage: Sequence[Segment]) -> RunSpec:
    """Return a plain run that changes its hyper-parameters where this lineage did."""
    eldest, *later = lineage
    train = search.train.model_copy(
        update={"schedule": tuple({"images": each.images, **each.values} for each in later)}
    )
    run = search.run.model_copy(
        update={"name": f"{search.run.name[:90]}-schedule", "seed": search.run.seed + int(eldest.trial)}
    )
    config = search.model_copy(update={"run": run, "train": train, "tune": None})
    return without_unused(with_values(config, eldest.values))
