"""Samples that take many passes are drawn where tasks score, never on rank 0 between rounds."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun import sample
from ganrun.config.load import load_config
from ganrun.config.validate_likelihood import NUMBER_BY_NUMBER
from ganrun.models.pixelcnn import PixelCnn
from ganrun.worker.worker import run_worker
from tests.densities.runs import run_config
from tests.ranks import checkpoints_awaited, run_folder
from tests.ray_backend.test_evaluation_tasks import Answering


def test_pictures_of_a_pixelcnn_come_from_the_tasks_that_score(values, extractor, monkeypatch, capsys, tmp_path):
    values["evaluate"] = {"every_images": 60, "samples": 20, "extractor": str(extractor)}
    values["telemetry"] = {"sample_images": 4}
    config = run_config(values, "pixelcnn", train__total_images=120, train__tick_images=12)
    drawn, answering = [], Answering(config)
    original = PixelCnn.sample

    def counted(density, count, noise):
        drawn.append((answering.answering, count))
        return original(density, count, noise)

    answering.answering, answer = False, answering.answer

    def noted(wanted):
        answering.answering = True
        found = answer(wanted)
        answering.answering = False
        return found

    answering.answer = noted
    monkeypatch.setattr(PixelCnn, "sample", counted)
    with checkpoints_awaited():
        run_worker(config, 0, 1, torch.device("cpu"), answering)
    pictures = sorted(run_folder(config).glob("samples/*.png"))
    scored = [12, 60]  # The baseline, and the middle; the last score is of the workers.
    assert [int(path.stem) for path in pictures] == [*scored, 120]
    assert [count for in_task, count in drawn if in_task] == [20, 4] * 2
    assert [count for in_task, count in drawn if not in_task] == [4, 20]  # After the last round.
    assert np.asarray(Image.open(io.BytesIO(pictures[0].read_bytes()))).shape[2] == 3
    out = tmp_path / "grid.png"
    assert sample.main([str(run_folder(config)), "--out", str(out), "--count", "3"]) == 0
    assert "pixelcnn: 72 passes, one after the other, for each 64 images" in capsys.readouterr().err
    assert out.exists()


@pytest.mark.parametrize("name", NUMBER_BY_NUMBER)
def test_the_config_of_the_package_scores_in_a_task(name):
    assert load_config(f"configs/{name}_fashion.yaml").evaluate.where == "task"
