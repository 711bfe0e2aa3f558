"""Configs of searches over the small data set."""

from ganrun.telemetry.records import CheckpointWritten, Exploited
from tests.conftest import config_of

MUTATIONS = {
    "optimizer.generator.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "objective.label_smoothing": {"uniform": [0.0, 0.3]},
}


def search(values, name="search", population=4, total_images=240, every=60, mutations=None, **tune):
    """Return the config values of a search whose trials train like the small run, with a score per interval."""
    tune = {"population": population, "perturb_every_images": every, "mutations": mutations or MUTATIONS} | tune
    if tune.get("method") == "seeds":
        tune["mutations"] = {}
    values = values | {"tune": tune, "evaluate": {"every_images": every, "samples": 12}}
    return config_of(values, run__name=name, train__total_images=total_images)


def written(images, checkpoint):
    """The event of a checkpoint that was written."""
    return CheckpointWritten(images=images, checkpoint=checkpoint, bytes=5, blocked_seconds=0.1, upload_seconds=0.2)


def exploited(number, images, values=None):
    """The event of a trial that has taken over another's state."""
    begun = {"attempt": 2, "rollback_count": 0, "checkpoint": "c", "damaged": [], "donor": "x"}
    return Exploited(images=images, number=number, values=values or {}, **begun)
