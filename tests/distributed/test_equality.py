"""The same run on any number of workers, stopped and resumed or not, is the same run."""

import pytest
import torch

from tests.conftest import config_of
from tests.ranks import latest_tensors, run_ranks

TOTAL, STOP = 240, 132
"""20 rounds of 12 images; the stop falls into the middle of an epoch (of 138 images) and of a tick."""


@pytest.fixture
def undisturbed(values, tmp_path):
    config = config_of(values, run__name="undisturbed", objective__discriminator_turns=2, train__total_images=2 * TOTAL)
    run_ranks(config, 1, tmp_path / "meeting")
    return latest_tensors(config)


def assert_close(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_do_not_enter(values, tmp_path, undisturbed, workers):
    config = config_of(
        values, objective__discriminator_turns=2, train__total_images=2 * TOTAL, cluster__workers=workers
    )
    run_ranks(config, workers, tmp_path / "meeting2")
    assert_close(latest_tensors(config), undisturbed)


def test_workers_may_change_at_a_resume(values, tmp_path, undisturbed):
    config = config_of(values, objective__discriminator_turns=2, train__total_images=2 * TOTAL)
    run_ranks(config, 2, tmp_path / "first", stop_at=STOP)
    run_ranks(config, 5, tmp_path / "second", stop_at=2 * STOP)
    run_ranks(config, 1, tmp_path / "third")
    assert_close(latest_tensors(config), undisturbed)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stop_and_resume_equals_never_stopped_bit_for_bit(values, tmp_path, workers, precision):
    whole = config_of(values, run__name="whole", train__precision=precision)
    parts = config_of(values, run__name="parts", train__precision=precision)
    run_ranks(whole, workers, tmp_path / "whole")
    run_ranks(parts, workers, tmp_path / "first", stop_at=STOP)
    stopped = latest_tensors(parts)
    run_ranks(parts, workers, tmp_path / "second")
    resumed, expected = latest_tensors(parts), latest_tensors(whole)
    assert resumed.keys() == expected.keys()
    for name, tensor in resumed.items():
        assert torch.equal(tensor, expected[name]), name
    assert not torch.equal(stopped["generator/layers.0.weight"], resumed["generator/layers.0.weight"])
