"""`evaluate.best`: best.json follows any score, in either direction, also after a resume."""

import json

import pytest

from ganrun.config.load import load_config
from ganrun.config.registry import SCORES
from ganrun.config.run_spec import resolve
from ganrun.errors import UserError
from ganrun.evaluation.score import Score
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.report import describe_run
from ganrun.run_folder.run_config import write_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.run_folder.status import ScorePoint, read_status
from ganrun.storage import Folder
from tests.conftest import config_of, write_yaml
from tests.ranks import run_folder, run_ranks

PLANNED = [6.0, 3.0, 7.0, 5.0, 4.0, 9.0, 8.0, 1.0, 2.0]


class Planned(Score):
    """The next of PLANNED at each score."""

    calls = 0

    def result(self, sums, features):
        type(self).calls += 1
        return {"planned": PLANNED[type(self).calls - 1]}


@pytest.fixture
def planned(values, monkeypatch):
    monkeypatch.setitem(SCORES.data, "planned", Planned)
    monkeypatch.setattr(Planned, "calls", 0)
    values["run"]["imports"] = ["tests.worker.test_best"]
    values["train"]["total_images"] = 96
    values["evaluate"] = {"every_images": 24, "samples": 12, "metrics": ["planned"]}
    values["checkpoint"] = {"every_images": 24, "keep": 9}
    return values


@pytest.mark.parametrize(("mode", "best"), [("max", max), ("min", min)])
def test_best_json_follows_a_score_of_ones_own(planned, tmp_path, mode, best):
    config = resolve(config_of(planned, evaluate__best={"metric": "planned", "mode": mode}))
    storage = Folder(run_folder(config))
    write_config(config, RunFolder(storage))
    for stop in (48, None):
        run_ranks(config, 1, tmp_path / "rendezvous", stop_at=stop)
        lines = [line for line in read_curve(storage)[0] if "planned" in line]
        assert [line["planned"] for line in lines] == PLANNED[: len(lines)]
        pointer = json.loads(storage.read("best.json"))
        assert pointer["score"] == best(line["planned"] for line in lines)
        (line,) = (line for line in lines if line["planned"] == pointer["score"])
        assert pointer["images"] == line["images"]
        assert read_status(storage).best_score == ScorePoint(line["images"], pointer["score"])
    assert len(lines) >= 4
    assert f"planned (n=12): {lines[-1]['planned']:.3f}" in describe_run(read_status(storage), 0)


@pytest.mark.parametrize(
    ("best", "reason"),
    [
        ({"metric": "planned"}, "evaluate.best.mode: missing; say which planned is better: min or max"),
        ({"metric": "kid"}, r"evaluate.best.metric: kid is not computed; allowed: distance, planned; add it to"),
        ({"metric": "modes"}, r"name one of its values, modes_covered or mode_kl"),
        ({"metric": "planned", "mode": "least"}, r"evaluate.best.mode: 'least' is not allowed"),
        ({"metrics": "planned"}, r"evaluate.best.metrics: unknown key; did you mean evaluate.best.metric\?"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(planned, tmp_path, best, reason):
    planned["evaluate"]["best"] = best
    with pytest.raises(UserError, match=reason):
        load_config(write_yaml(tmp_path / "wrong.yaml", planned))


def test_a_built_in_score_knows_its_direction(planned):
    planned["evaluate"] |= {"metrics": ["recall", "kid"], "best": {"metric": "recall"}}
    planned["tune"] = {"perturb_every_images": 48, "metric": "kid"}
    config = resolve(config_of(planned))
    assert (config.evaluate.best.mode, config.tune.mode) == ("max", "min")
    assert resolve(config_of(planned, evaluate__best={})).evaluate.best.mode == "min"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weight_decay": 0.1}, "weight_decay: 0.1 has no effect with optimizer.generator.name: adam; .* adamw or sgd"),
        ({"name": "sgd", "beta1": 0.9}, "beta1: 0.9 has no effect with optimizer.generator.name: sgd"),
        ({"name": "adan"}, "optimizer.generator.name: 'adan' is not allowed; .* did you mean adam"),
    ],
)
def test_settings_that_an_optimizer_does_not_have_are_refused(values, tmp_path, settings, reason):
    values["optimizer"] = {"generator": settings}
    with pytest.raises(UserError, match=reason):
        load_config(write_yaml(tmp_path / "wrong.yaml", values))
