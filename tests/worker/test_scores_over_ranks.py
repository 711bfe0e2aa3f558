"""A score of the user's own has the same value on any number of workers."""

import json

import pytest
import torch

from ganrun.extend import SCORES, Score
from tests.conftest import config_of
from tests.ranks import run_folder, run_ranks


class Contrast(Score):
    """Standard deviation of all pixels."""

    def start(self, subject):
        return {"moments": torch.zeros(3, dtype=torch.float64)}

    def update(self, sums, batch):
        pixels = batch.images.double()
        sums["moments"] += torch.stack([torch.tensor(float(pixels.numel())), pixels.sum(), pixels.square().sum()])

    def result(self, sums, features):
        count, total, square = sums["moments"].tolist()
        return {"contrast": (square / count - (total / count) ** 2) ** 0.5}


SCORES["contrast"] = Contrast


def test_a_score_does_not_depend_on_the_number_of_workers(values, tmp_path):
    values["run"]["imports"] = [__name__]
    values["train"]["total_images"] = 24
    values["evaluate"] = {"every_images": 24, "samples": 150, "metrics": ["contrast"]}
    found = []
    for workers in (1, 3):
        config = config_of(values, run__name=f"of-{workers}", cluster__workers=workers)
        run_ranks(config, workers, tmp_path / f"rendezvous-{workers}")
        (file,) = (run_folder(config) / "metrics").iterdir()
        *_, line = [json.loads(line) for line in file.read_text().splitlines() if "contrast" in line]
        found.append(line["contrast"])
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[0] > 0
