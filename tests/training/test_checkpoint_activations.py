"""Activations that are computed again change no bit of a run, and take less memory."""

import copy

import pytest
import torch

from ganrun.models.checkpointing import checkpoint_activations
from ganrun.models.r3gan import Block
from tests.families import FAMILIES
from tests.training.test_replay import Rounds, check, family_config

NOT_NETWORKS = {"dirac", "linear_quadratic"}
"""Families whose players have a number each."""


def with_and_without(name, values):
    values["train"]["checkpoint_activations"] = False
    kept = family_config(name, values, 2)
    return kept, kept.model_copy(update={"train": kept.train.model_copy(update={"checkpoint_activations": True})})


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - NOT_NETWORKS))
def test_rounds_have_the_same_bits(name, values):
    kept, again = (Rounds(config) for config in with_and_without(name, values))
    for rounds in (kept, again):
        rounds.eager(3)
    expected = kept.tensors()
    assert again.tensors().keys() == expected.keys()
    for key, tensor in again.tensors().items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("name", ["r3gan", "wgan_gp_dcgan", "pix2pix"])
def test_such_a_round_can_be_captured(name, values):
    _, again = with_and_without(name, values)
    check(again)


def kept_bytes(network, *arguments):
    """Bytes that a forward pass keeps for the backward pass, besides the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(*arguments)
    return sum(kept.values()), output


def test_a_network_of_blocks_keeps_their_inputs_alone():
    torch.manual_seed(0)
    network = torch.nn.Sequential(*(Block(8) for _ in range(4)))
    x = torch.randn(2, 8, 16, 16)
    whole, expected = kept_bytes(network, x)
    checkpoint_activations(network)
    for each in (network, copy.deepcopy(network)):
        least, output = kept_bytes(each, x)
        assert torch.equal(output, expected)
        assert least <= 4 * x.nbytes < whole / 3


def test_a_copy_runs_its_own_weights():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())
    checkpoint_activations(network)
    twin = copy.deepcopy(network)
    torch.nn.init.zeros_(twin[0].weight)
    torch.nn.init.zeros_(twin[0].bias)
    x = torch.randn(3, 2, requires_grad=True)
    assert twin(x).abs().sum() == 0
    assert network(x).abs().sum() > 0
    assert network.state_dict().keys() == twin.state_dict().keys() == {"0.weight", "0.bias"}
