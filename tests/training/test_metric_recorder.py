"""Means between ticks, slot by slot."""

import pytest
import torch

from ganrun.slots import Slots
from ganrun.training.metric_recorder import MetricRecorder
from ganrun.training.player_step import StepResult

CPU = torch.device("cpu")


@pytest.fixture
def recorder():
    return MetricRecorder(Slots(2), CPU)


def turn(*rows, skipped=False):
    """What a turn of two slots left."""
    return StepResult(
        [{name: torch.tensor(value) for name, value in row.items()} for row in rows], torch.tensor(float(skipped))
    )


def test_a_tick_reads_the_mean_over_turns_and_slots(recorder):
    recorder.add(turn({"loss": 1.0}, {"loss": 2.0}))
    recorder.add(turn({"loss": 3.0}, {"loss": 6.0}))
    assert recorder.read() == ({"loss": 3.0}, 0)


def test_a_tick_begins_anew(recorder):
    recorder.add(turn({"loss": 1.0}, {"loss": 2.0}, skipped=True))
    recorder.read()
    assert recorder.read() == ({}, 0)
    recorder.add(turn({"loss": 5.0}, {"loss": 5.0}))
    assert recorder.read() == ({"loss": 5.0}, 0)


def test_each_name_has_the_mean_of_its_own_turns(recorder):
    recorder.add(turn({"a": 1.0, "b": 10.0}, {"a": 1.0, "b": 20.0}))
    recorder.add(turn({"c": 4.0}, {"c": 6.0}))
    recorder.add(turn({"b": 30.0, "a": 7.0}, {"b": 40.0, "a": 7.0}))
    assert recorder.read() == ({"a": 4.0, "b": 25.0, "c": 5.0}, 0)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_does_not_count(recorder, odd):
    recorder.add(turn({"loss": 1.0, "norm": odd}, {"loss": odd, "norm": odd}))
    recorder.add(turn({"loss": 4.0, "norm": odd}, {"loss": 4.0, "norm": odd}))
    assert recorder.read() == ({"loss": 3.0}, 0)


def test_skipped_turns_are_counted(recorder):
    for skipped in (True, False, True):
        recorder.add(turn({"loss": 1.0}, {"loss": 1.0}, skipped=skipped))
    assert recorder.read()[1] == 2


def test_sums_are_exact_enough_for_long_ticks(recorder):
    """In float32, adding 1 to 2**24 changes nothing."""
    recorder.add(turn({"loss": 2.0**24}, {"loss": 2.0**24}))
    for _ in range(3):
        recorder.add(turn({"loss": 1.0}, {"loss": 1.0}))
    assert recorder.read()[0]["loss"] == (2**24 + 3) / 4


def test_a_tick_that_a_stop_falls_into_is_none_the_poorer(recorder):
    recorder.add(turn({"loss": 1.0}, {"loss": 2.0}, skipped=True))
    resumed = MetricRecorder(Slots(2), CPU)
    resumed.load_state_dict(recorder.state_dict())
    for each in (recorder, resumed):
        each.add(turn({"loss": 4.0, "new": 1.0}, {"loss": 5.0, "new": 3.0}))
    assert resumed.read() == recorder.read() == ({"loss": 3.0, "new": 2.0}, 1)


def test_a_state_does_not_change_when_who_loaded_it_goes_on(recorder):
    recorder.add(turn({"loss": 1.0}, {"loss": 2.0}, skipped=True))
    state = recorder.state_dict()
    resumed, again = MetricRecorder(Slots(2), CPU), MetricRecorder(Slots(2), CPU)
    resumed.load_state_dict(state)
    resumed.add(turn({"loss": 100.0, "new": 1.0}, {"loss": 100.0, "new": 1.0}, skipped=True))
    resumed.read()
    again.load_state_dict(state)
    assert again.read() == ({"loss": 1.5}, 1)


def test_a_worker_goes_on_with_its_own_slots():
    whole = MetricRecorder(Slots(3), CPU)
    whole.add(turn({"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}))
    state = whole.state_dict()
    for rank, owned in enumerate(([0], [1, 2])):
        part = MetricRecorder(Slots(3, rank, 2), CPU)
        part.load_state_dict(state)
        part.add(turn(*({"loss": 0.0} for _ in owned)))  # its table has one row for each owned slot
        alone = MetricRecorder(Slots(len(owned)), CPU)
        alone.load_state_dict({"names": part.names, "sums": part.sums, "nonfinite": part.nonfinite})
        assert alone.read()[0]["loss"] == pytest.approx(sum(slot + 1 for slot in owned) / (2 * len(owned)))
