"""`ganrun bench`: one shape of results, and both sides of a comparison compute the same."""

import copy
import json

import pytest
import torch
from torch import Tensor

from ganrun import bench
from ganrun.benchmarks import job, startup, step, tutorial_step
from ganrun.benchmarks.comparison import in_turn, ratio, result, spread
from ganrun.benchmarks.round_phases import phases
from ganrun.benchmarks.rounds import a_batch, flops, rounds
from ganrun.errors import UserError
from ganrun.training.state import TrainingState
from tests.benchmarks import ablation, ddp
from tests.benchmarks.__main__ import MEASURES
from tests.conftest import config_of, write_yaml

SHAPE = {"what", "peer", "ours", "theirs", "unit", "ratio", "limit_share", "repeats", "spread", "sides"}


@pytest.fixture
def small(values, tmp_path):
    """Config file of a small run."""
    values["train"]["precision"] = "float32"
    return write_yaml(tmp_path / "small.yaml", values)


@pytest.fixture
def quick(monkeypatch):
    """Shorten the measurements."""
    for measure in (step, ablation, ddp):
        monkeypatch.setattr(measure, "REPEATS", 2)
        monkeypatch.setattr(measure, "SECONDS", 0.02)
    monkeypatch.setattr(step, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(bench, "_job_over_step", lambda config: 0.5)  # A real job through Ray: see the drill.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # On a GPU: test_bench_gpu.py.


def test_sides_take_turns_and_are_compared_repeat_by_repeat():
    calls = []

    def side(name, *rates):
        left = list(rates)
        return lambda: calls.append(name) or left.pop(0)

    rates = in_turn({"ours": side("ours", 4.0, 1.0, 9.0), "theirs": side("theirs", 2.0, 1.0, 3.0)}, 3)
    assert calls == ["ours", "theirs"] * 3
    found = result("step", "them", "images/s", rates["ours"], rates["theirs"], 0.5, more=1)
    assert found.keys() == SHAPE | {"more"}
    assert (found["ours"], found["theirs"], found["ratio"], found["repeats"]) == (4.0, 2.0, 2.0, 3)
    assert ratio([1.0], [2.0]) == 0.5
    assert spread([1.0, 2.0, 5.0]) == 2.0


def test_step_measures_rounds_and_the_whole_loop_and_draws_them(small, quick, tmp_path, capsys):
    assert bench.main(["step", str(small), "--json", "--plot", str(tmp_path / "step.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= SHAPE | {"float32_ratio", "bf16_ratio", "loop_over_step", "peak_mib"}
    assert found["float32_ratio"] == found["ratio"] > 0
    assert found["loop_over_step"] > 0
    assert found["job_over_step"] == 0.5
    assert 0 < found["limit_share"] < 1
    assert 0 < found["product_share"] < 1
    assert sum(found["phases"].values()) == pytest.approx(1)
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    step.describe(found)


def test_step_does_without_data(small, quick, capsys):
    assert bench.main(["step", str(small), "data.shards=nowhere"]) == 0
    assert "the whole loop (stream, ticks, pictures, checkpoints): not measured: " in capsys.readouterr().out


def test_two_workers_are_measured_beside_two_processes(small, quick, capsys):
    assert bench.main(["ddp", str(small), "--json"], MEASURES, "tests.benchmarks") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= SHAPE
    assert {len(rates) for rates in found["sides"].values()} == {2}
    assert set(found["sides"]) == {
        "ganrun",
        "as many independent processes",
        "plain DDP, textbook step",
        "one process alone",
    }


def test_each_ablation_is_measured(small, quick, capsys):
    assert bench.main(["ablation", str(small)], MEASURES, "tests.benchmarks") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ablation.WITHOUT)


def weights(state: TrainingState) -> list[Tensor]:
    return [parameter.detach() for network in state.game.networks.values() for parameter in network.parameters()]


@pytest.mark.parametrize("name", ablation.WITHOUT)
def test_a_round_without_something_computes_the_same(values, name):
    config = config_of(values, data__slots=1)
    batch = a_batch(config, 12)
    (whole, _), without = rounds(config), ablation.WITHOUT[name](config)
    for _ in range(2):
        for state in (whole, without):
            state.round(lambda: [batch])
    for mine, other in zip(weights(whole), weights(without), strict=True):
        torch.testing.assert_close(other, mine, rtol=0, atol=1e-5)


def test_what_is_taken_away_is_gone(values):
    config = config_of(values, data__slots=1)
    state, play_round = rounds(config, state=ablation.WITHOUT["with none of the first three"](config))
    frozen, _ = rounds(config)
    kept = copy.deepcopy(state.ema)
    play_round()
    assert kept.keys() == state.ema.keys()
    assert all(weight.is_contiguous() for weight in weights(state))
    assert not all(weight.is_contiguous() for weight in weights(frozen))
    discriminator = state.game.networks["discriminator"]
    own = [parameter.grad.clone() for parameter in discriminator.parameters()]
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    state.player_steps[1].step([state.normalise(a_batch(config, 12))], list(state._noises(0, 0)), torch.tensor(1e-3))
    assert not any(
        torch.equal(parameter.grad, mine) for parameter, mine in zip(discriminator.parameters(), own, strict=True)
    )


def test_a_textbook_step_moves_both_networks_and_costs_what_a_round_costs(values):
    config = config_of(values, data__slots=1, train__precision="float32")
    book = tutorial_step.TutorialStep.of(config)
    before = copy.deepcopy([book.generator.state_dict(), book.discriminator.state_dict()])
    advance = book.steps(a_batch(config, 12))
    advance()
    for network, old in zip((book.generator, book.discriminator), before, strict=True):
        assert not any(torch.equal(parameter, old[name]) for name, parameter in network.named_parameters())
    # The round generates twice and leaves out weight gradients, the textbook the other way round.
    assert flops(rounds(config)[1]) == pytest.approx(flops(advance), rel=0.1)


def test_phases_are_shares_of_a_round(values):
    found = phases(*rounds(config_of(values, data__slots=1)))
    assert sum(found.values()) == pytest.approx(1)
    assert found["generator: backward"] > 0
    assert found["other"] > 0
    assert {"discriminator: forward generator", "generator: optimizer", "ema", "data: normalise"} < found.keys()


def test_a_job_ticks_and_saves_as_often_as_said_and_does_not_score(values):
    config = config_of(values, evaluate__every_images=60)
    made = job._job(config, images_per_second=100.0)
    assert made.train.total_images == 4 * made.train.tick_images
    assert made.train.total_images == 2 * made.checkpoint.every_images
    assert made.train.tick_images == pytest.approx(100 * 40 / 4, abs=config.data.batch_size)
    assert made.evaluate.every_images == 0
    with pytest.raises(UserError, match=r"cluster\.workers: 2, but bench job compares one"):
        job.measure(config_of(values, cluster__workers=2))


def test_step_has_no_job_where_there_is_no_data(values, capsys):
    assert bench._job_over_step(config_of(values, data__shards="nowhere")) is None
    assert "job_over_step is not measured: " in capsys.readouterr().err


@pytest.mark.drill
def test_a_real_job_is_measured(small, monkeypatch, capsys):
    for name, value in {"REPEATS": 1, "JOB_SECONDS": 2.0, "ROUND_SECONDS": 0.2}.items():
        monkeypatch.setattr(job, name, value)
    assert bench.main(["job", str(small), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= SHAPE | {"job_over_step", "shares"}
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert {"round", "data", "samples", "telemetry"} <= found["shares"].keys()
    assert not list((small.parent / "runs").iterdir())


@pytest.mark.drill
def test_starts_are_measured(small, monkeypatch, capsys):
    monkeypatch.setattr(startup, "REPEATS", 1)
    assert bench.main(["startup", str(small), "cluster.workers=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= SHAPE | {"help_seconds", "fault_seconds", "first_step_over_bare"}
