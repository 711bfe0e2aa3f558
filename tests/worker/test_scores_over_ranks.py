"""A score of the user's own has the same value on any number of workers."""

import json

import pytest

from ganrun.extend import SCORES
from tests.conftest import config_of
from tests.ranks import run_folder, run_ranks


@pytest.fixture
def registered():
    """Its name, and no trace of it in this process afterwards: `ganrun evaluate` measures all registered scores."""
    yield "contrast"
    SCORES.data.pop("contrast", None)


def test_a_score_does_not_depend_on_the_number_of_workers(values, tmp_path, registered):
    values["run"]["imports"] = ["tests.worker.contrast"]
    values["train"]["total_images"] = 24
    values["evaluate"] = {"every_images": 24, "samples": 150, "metrics": [registered]}
    found = []
    for workers in (1, 3):
        config = config_of(values, run__name=f"of-{workers}", cluster__workers=workers)
        run_ranks(config, workers, tmp_path / f"rendezvous-{workers}")
        (file,) = (run_folder(config) / "metrics").iterdir()
        *_, line = [json.loads(line) for line in file.read_text().splitlines() if "contrast" in line]
        found.append(line["contrast"])
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[0] > 0
