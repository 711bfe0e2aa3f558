"""A run that scores its duality gap: the same on any number of workers, and the same run as without it."""

import json

import pytest
import torch

from ganrun import evaluate
from ganrun.config.run_spec import resolve
from ganrun.run_folder import run_config
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import Folder
from ganrun.telemetry.series import is_charted
from tests.conftest import config_of
from tests.ranks import latest_tensors, run_folder, run_ranks


def scored(config):
    return [line for line in read_curve(Folder(run_folder(config)))[0] if "frechet_distance" in line]


@pytest.fixture
def run(values, extractor, tmp_path):
    values["model"]["spectral_norm"] = True
    values["train"]["total_images"] = 72
    values["evaluate"] = {
        "every_images": 36,
        "samples": 24,
        "held_out_share": 0.2,
        "extractor": str(extractor),
    }

    def run(workers, gap=True):
        values["run"]["name"] = f"of-{workers}-{gap}"
        if gap:
            values["evaluate"] |= {"metrics": ["duality_gap"], "best": {"metric": "duality_gap"}}
        config = resolve(config_of(values, cluster__workers=workers))
        run_config.write_config(config, RunFolder(Folder(run_folder(config))))
        run_ranks(config, workers, tmp_path / f"meeting-{workers}-{gap}")
        return config

    return run


def test_the_gap_of_a_run_is_the_same_on_any_number_of_workers_and_moves_nothing(run, capsys):
    without, one, two = run(1, gap=False), run(1), run(2)
    gaps = [[line["duality_gap"] for line in scored(config)] for config in (one, two)]
    assert len(gaps[0]) >= 2
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-6)
    assert min(gaps[0]) > 0
    with_it, expected = latest_tensors(one), latest_tensors(without)
    assert with_it.keys() == expected.keys()
    assert all(torch.equal(with_it[name], expected[name]) for name in expected)
    pointer = json.loads((run_folder(one) / "best.json").read_text())
    assert pointer["score"] == min(gaps[0])
    assert is_charted("duality_gap")
    capsys.readouterr()
    assert evaluate.main([str(run_folder(one)), "--json", "--metrics", "duality_gap"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["duality_gap"] == pytest.approx(gaps[0][-1], rel=1e-6)
    assert found["duality_gap_is"] == (
        "V = E log s(D(x)) + E log(1 - s(D(G(z)))); EMA generator; k=50 steps of Adam at 0.001 on 12 held-out samples, "
        "V on 12 others"
    )
