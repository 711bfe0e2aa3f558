"""Configs of searches over the small data set."""

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
