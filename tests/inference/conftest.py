"""Runs to search and to paint with: plain, of three classes, and one that translates lines to colours."""

import pytest
import torch

from tests.conftest import config_of, small_run, write_data
from tests.paired import paired, write_pairs
from tests.ranks import run_folder, run_ranks


def contrast(sampler):
    """Give a generator other weights, so that its images differ as those of a long run do, from black to white."""
    with torch.no_grad():
        for parameter in sampler.game.networks["generator"].parameters():
            if parameter.dim() == 4:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 8)
    return sampler


@pytest.fixture(scope="session")
def painted(tmp_path_factory):
    """Folders of the runs by name."""
    place, found = tmp_path_factory.mktemp("painted"), {}
    values = small_run(place, write_data(place / "data", image_size=32))
    values["data"] |= {"image_size": 32}
    values["train"] |= {"precision": "float32", "average_half_life_images": 0}
    translating = paired(values, write_pairs(place / "pairs"), run={"name": "lines"})
    values["train"] |= {"total_images": 240}
    values["optimizer"] = {name: {"learning_rate": 0.01} for name in ("generator", "discriminator")}
    of_classes = {
        "run": values["run"] | {"name": "classes"},
        "data": values["data"] | {"fields": {"image": "image", "label": "label"}},
        "model": values["model"] | {"classes": 3},
    }
    encoder = {
        "run": values["run"] | {"name": "inverse"},
        "objective": {"game": "inversion", "of": f"{place}/plain"},
        "optimizer": {"encoder": {"learning_rate": 0.003}},
    }
    values["run"] = values["run"] | {"name": "plain"}
    for mine in (values, values | of_classes, translating, values | encoder):
        config = config_of(mine)
        run_ranks(config, 1, place / f"meeting-{config.run.name}")
        found[config.run.name] = run_folder(config)
    return found
