"""Runs and searches that Python starts are those of the commands, on a real Ray."""

import pytest

import ganrun
from ganrun.errors import UserError
from tests.commands import LOCAL_RAY
from tests.recorded import ganrun as command
from tests.test_documents import SMALL


def test_what_is_wrong_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (ganrun.train, ganrun.tune):
        with pytest.raises(UserError, match=r"data\.shards: 'nowhere' holds no shards"):
            call("pbt_quickstart", data={"shards": "nowhere"})
    assert not (tmp_path / "runs").exists()


@pytest.mark.drill
def test_a_search_returns_its_trials_and_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in LOCAL_RAY.items():
        monkeypatch.setenv(name, value)
    small = {"model.width": 4, "train.total_images": 384, "evaluate.samples": 16, "tune.population": 2}
    small |= {"tune.perturb_every_images": 192, "evaluate.every_images": 192, "train.precision": "float32"}
    trials = ganrun.tune("pbt_quickstart", **small)
    scores = [trial.scores()["frechet_distance"] for trial in trials]
    assert (len(scores), scores) == (2, sorted(scores))
    keys = {key: int(value) for key, value in (override.split("=") for override in SMALL["quickstart.yaml"])}
    first = ganrun.train("quickstart", **keys)
    again = ganrun.train("quickstart", **(keys | {"train.total_images": 256}))
    assert (first.uri, again.scores()["images"]) == (again.uri, 256)
    code, output, _ = command("train", "quickstart", *SMALL["quickstart.yaml"], "train.total_images=256")
    assert (code, output.strip()) == (0, again.uri)
