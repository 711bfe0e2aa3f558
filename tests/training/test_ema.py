"""The averaged network follows the network with a half-life in images."""

import pytest
import torch
from torch import nn

from ganrun.training.ema import EMA, ema_weight
from ganrun.training.flat import flatten

LONG_AFTER = 10**9
"""So many images that the ramp at the beginning does not enter."""


def averaged(network):
    return EMA(network, flatten({"it": network})["it"])


def step_response(half_life, rounds, images=10, images_shown=LONG_AFTER):
    """A weight that jumps from 0 to 1: what its average has become after some rounds."""
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(network.weight)
    ema = averaged(network)
    nn.init.ones_(network.weight)
    for _ in range(rounds):
        ema.update(torch.tensor(ema_weight(half_life, images, images_shown), dtype=torch.float64))
    return ema.network.weight.item()


def test_after_one_half_life_half_the_way_is_gone():
    assert step_response(half_life=70, rounds=7) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("rounds", [1, 3, 20])
def test_the_average_equals_its_closed_form(rounds):
    assert step_response(half_life=35, rounds=rounds) == pytest.approx(1 - 0.5 ** (10 * rounds / 35), abs=1e-12)


def test_the_half_life_does_not_depend_on_the_size_of_a_round():
    assert step_response(70, rounds=2, images=50) == pytest.approx(step_response(70, rounds=10, images=10), abs=1e-12)


def test_at_the_beginning_the_half_life_is_a_share_of_the_images_shown():
    found = step_response(half_life=10_000, rounds=1, images=10, images_shown=1_000)
    assert found == pytest.approx(1 - 0.5 ** (10 / (0.05 * 1_000)), abs=1e-12)


def test_without_a_half_life_the_average_is_the_network():
    assert step_response(half_life=0, rounds=1) == 1


def test_running_statistics_are_averaged_and_counts_are_copied():
    network = nn.BatchNorm1d(2)
    ema = averaged(network)
    network.running_mean.fill_(4.0)
    network.num_batches_tracked.fill_(7)
    ema.update(torch.tensor(ema_weight(10, 10, LONG_AFTER)))
    assert ema.network.running_mean.tolist() == [2.0, 2.0]
    assert ema.network.num_batches_tracked.item() == 7


def test_the_average_is_a_copy_for_inference():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = averaged(network)
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    ema.network[0].weight.zero_()
    assert network[0].weight.abs().sum() > 0


def test_the_average_goes_on_from_loaded_weights():
    network = nn.Linear(1, 1, bias=False)
    ema = averaged(network)
    ema.network.load_state_dict({"weight": torch.zeros(1, 1)})
    network.load_state_dict({"weight": torch.ones(1, 1)})
    ema.update(torch.tensor(ema_weight(10, 10, LONG_AFTER)))
    assert ema.network.weight.item() == 0.5
