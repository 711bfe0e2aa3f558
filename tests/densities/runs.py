"""Config values of small runs of each density."""

from ganrun.config.validate_likelihood import NUMBER_BY_NUMBER
from tests.conftest import config_of
from tests.densities.densities import IMAGES


def run_values(values, name, **changes):
    """Values of a run of a density over the small data set, cropped to 8x8 pixels."""
    data = values["data"] | {"image_size": 8, "crop": 8, "slots": 6}
    likelihood = {"em_passes": 2} if name.startswith("mixture") else {}
    where = {"where": "task"} if name in NUMBER_BY_NUMBER else {}
    return values | {
        "data": data,
        "model": {"name": name, **IMAGES[name]},
        "objective": {"game": "likelihood", "likelihood": likelihood},
        "optimizer": {"density": {"learning_rate": 1e-3, "beta1": 0.9}},
        "evaluate": values.get("evaluate", {}) | where,
        **changes,
    }


def run_config(values, name, **overrides):
    return config_of(run_values(values, name), **overrides)
