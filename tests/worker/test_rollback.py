"""A run that diverges goes back to its last good checkpoint with other noise, so often and no more."""

import json
import sys

import pytest
import torch

from ganrun.errors import RunError
from tests.conftest import config_of
from tests.ranks import StopAt, latest_tensors, run_folder, run_ranks, work_rank

MODULE = """
import torch
from ganrun.games import losses
from ganrun.games.losses import AdversarialLoss
from ganrun.rng import KeyedNoise
from ganrun.config.registry import LOSSES

turn = {"rollback_count": 0, "images": 0}
uniform, normal = KeyedNoise.uniform, KeyedNoise.normal

def noted(self, *size, **options):
    turn.update(rollback_count=self.rollback_count, images=self.images)
    return normal(self, *size, **options)

KeyedNoise.normal = noted

def breaking(real, fake):
    loss = losses.non_saturating.discriminator(real, fake)
    broken = turn["images"] >= %(at)d and turn["rollback_count"] < %(until)d
    return loss * torch.nan if broken else loss

LOSSES["breaking_%(at)d_%(until)d"] = AdversarialLoss(breaking, losses.non_saturating.generator)
"""


@pytest.fixture
def breaking(tmp_path, monkeypatch):
    """A module with a loss that is NaN from so many images on, in generations of noise before one."""

    def make(at, until):
        name = f"breaking_{at}_{until}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(MODULE % {"at": at, "until": until})
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
        return {"run__imports": [name], "objective__loss": f"breaking_{at}_{until}"}

    return make


@pytest.fixture
def values_of(values):
    values["train"] |= {"nonfinite_tolerance": 1, "tick_images": 24, "total_images": 144}

    def make(name, breaking, **changes):
        run = {"name": name, "storage": values["run"]["storage"], "imports": breaking["run__imports"]}
        changed = {"run": run, "objective": {"loss": breaking["objective__loss"]}}
        return config_of(values | changed, **changes)

    return make


def events(config):
    files = sorted((run_folder(config) / "events").iterdir())
    return [[json.loads(channel) for channel in file.read_text().splitlines()] for file in files]


def kinds(config):
    return [[event["kind"] for event in attempt if event["kind"] != "attempt"] for attempt in events(config)]


def test_it_goes_on_from_the_checkpoint_with_other_noise_the_same_on_one_and_two_ranks(values_of, breaking, tmp_path):
    broken = breaking(60, until=1)
    one, two = (values_of(name, broken, checkpoint__every_images=36) for name in ("one", "two"))
    run_ranks(one, 1, tmp_path / "a")
    run_ranks(two, 2, tmp_path / "b")
    for config in (one, two):
        assert [attempt[0] for attempt in kinds(config)] == ["start", "rollback"]
        told = events(config)[1][1]
        assert (told["attempt"], told["images"], told["rollback_count"]) == (2, 36, 1)
        assert "rolled back to 36 images (rollback 1 of train.max_rollbacks: 2), since 2 turns" in told["message"]
        latest = json.loads((run_folder(config) / "latest.json").read_text())
        assert (latest["images"], latest["attempt"]) == (144, 2)
    tensors, expected = latest_tensors(two), latest_tensors(one)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)

    # The noise alone differs: a run that was stopped at the checkpoint and never broke has other weights.
    whole = values_of("whole", breaking(60, until=0))
    run_ranks(whole, 1, tmp_path / "c")
    assert not torch.equal(latest_tensors(whole)["generator/layers.0.weight"], expected["generator/layers.0.weight"])


def test_stopped_after_a_rollback_it_ends_as_if_never_stopped(values_of, breaking, tmp_path):
    broken = breaking(60, until=1)
    whole, parts = (values_of(name, broken, checkpoint__every_images=36) for name in ("whole", "parts"))
    run_ranks(whole, 1, tmp_path / "a")
    run_ranks(parts, 1, tmp_path / "b", stop_at=84)  # In the diverging tick, of the first attempt.
    run_ranks(parts, 1, tmp_path / "c", stop_at=108)
    run_ranks(parts, 1, tmp_path / "d")
    tensors, expected = latest_tensors(parts), latest_tensors(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def test_before_the_first_checkpoint_it_begins_anew(values_of, breaking, tmp_path):
    config = values_of("anew", breaking(24, until=2))
    run_ranks(config, 1, tmp_path / "a")
    assert [attempt[0] for attempt in kinds(config)] == ["start", "rollback", "rollback"]
    assert [attempt[1]["images"] for attempt in events(config)] == [0, 0, 0]
    curve = sorted(path.name for path in (run_folder(config) / "metrics").iterdir())
    assert curve == [f"000{attempt}-000000000000.jsonl" for attempt in (1, 2, 3)]


def test_it_fails_when_it_was_rolled_back_as_often_as_allowed_also_over_restarts(values_of, breaking, tmp_path):
    config = values_of("fails", breaking(60, until=9), checkpoint__every_images=36, train__max_rollbacks=1)
    for again in range(2):
        with pytest.raises(RunError, match=r"the run diverged: 2 turns .* train\.max_rollbacks: 1 allows"):
            run_ranks(config, 1, tmp_path / f"{again}")
    assert [attempt[-1] for attempt in kinds(config)] == ["left", "failed", "failed"]
    assert [attempt[1]["rollback_count"] for attempt in events(config)] == [0, 1, 1]
    assert all(torch.isfinite(tensor).all() for tensor in latest_tensors(config).values())


def test_the_driver_hears_of_it(values_of, breaking, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr("tests.ranks.StopAt", lambda stop_at: lines.append(StopAt(stop_at)) or lines[-1])
    config = values_of("told", breaking(60, until=1), checkpoint__every_images=36)
    work_rank(0, config, 1, str(tmp_path / "a"), None)
    (channel,) = lines
    heard = [event.kind for event in channel.events]
    assert heard.count("rollback") == 1
    assert heard[-1] == "finished"
    from ganrun.telemetry.state import RunHistory, RunState

    state = RunState(config.run, config.train, config.telemetry, RunHistory())
    for event in channel.events:
        state.handle(event)
    series = {(name, *labels.values()): value for name, labels, value in state.report().series}
    assert series["rollbacks_total",] == 1
    assert series["nonfinite_total",] == 3
    assert series["images",] == 144
    assert series["images_total",] == 144 + 96 - 36  # What was lost is work done, too.
    assert series["ended", "finished"] == 1


def saturating(tmp_path, monkeypatch):
    name = f"saturating_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from ganrun.games.losses import AdversarialLoss, non_saturating\nfrom ganrun.config.registry import LOSSES\n"
        "LOSSES['saturating'] = AdversarialLoss(\n"
        "    lambda real, fake: 0.001 + 0 * (real.mean() - fake.mean()), non_saturating.generator)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return {"run__imports": [name], "objective__loss": "saturating"}


@pytest.mark.parametrize("back", [False, True])
def test_a_suspected_collapse_is_told_and_rolled_back_only_if_the_config_says_so(
    values_of, tmp_path, monkeypatch, back
):
    config = values_of("collapses", saturating(tmp_path, monkeypatch), train__rollback_on_collapse=back)
    if back:
        with pytest.raises(RunError, match=r"a collapse is suspected at 120 images: .*gradient_vanished"):
            run_ranks(config, 1, tmp_path / "a")
        assert [attempt[0] for attempt in kinds(config)] == ["start", "rollback", "rollback"]
    else:
        run_ranks(config, 1, tmp_path / "a")
        told = [event for event in events(config)[0] if event["kind"] == "collapse_suspected"]
        assert [event["images"] for event in told if event["symptom"] == "gradient_vanished"] == [120]
