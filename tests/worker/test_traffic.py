"""What two workers send each other in a round: each gradient once, and a few numbers."""

import json

import pytest
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from ganrun.games.build import build_game
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.ranks import as_ranks

ROUNDS = 3


def play_counted(rank, config, folder):
    """Plays rounds; writes down the bytes of each collective of the last one, and of each storage of gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    state = new_state(config, torch.device("cpu"), Slots(config.slots, rank, 2))
    for player_step in state.player_steps:
        player_step.ddp.register_comm_hook(None, allreduce_hook)  # What DDP does by itself, where it can be counted.
    sent = []
    inner = dist.all_reduce

    def counted(tensor, *args, **kwargs):
        sent.append(tensor.nbytes)
        return inner(tensor, *args, **kwargs)

    dist.all_reduce = counted
    stream = torch.Generator().manual_seed(rank)
    shape = (config.data.batch_size // config.slots, 1, config.data.image_size, config.data.image_size)
    batches = [{"image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream)} for _ in state.slots.owned]
    for _ in range(ROUNDS):
        sent.clear()
        state.round(lambda: batches)
    storages = [
        sorted(
            {
                (grad.data_ptr(), grad.nbytes())
                for grad in (p.grad.untyped_storage() for p in player_step.parameters.values())
            }
        )
        for player_step in state.player_steps
    ]
    if rank == 0:
        found = {"sent": sent, "storages": [[size for _, size in each] for each in storages]}
        (folder / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def weights_of(network):
    return sum(parameter.nbytes for parameter in network.parameters())


@pytest.mark.parametrize("slots", [2, 6])
def test_a_round_sends_each_players_gradient_once_and_one_row_of_statistics_a_slot(values, tmp_path, slots):
    config = config_of(values, data__slots=slots)
    as_ranks(play_counted, (config, tmp_path), 2)
    found = json.loads((tmp_path / "found.json").read_text())
    networks = build_game(config, torch.device("cpu")).networks
    discriminator, generator = weights_of(networks["discriminator"]), weights_of(networks["generator"])
    numbers = sum(
        2 * module.num_features + 1
        for network in networks.values()
        for module in network.modules()
        if isinstance(module, SlotBatchNorm2d)
    )
    # A mean and a variance a channel, and whether the layer ran, for each slot.
    statistics = slots * numbers * torch.float64.itemsize
    assert sum(found["sent"]) == discriminator + generator + statistics
    assert found["sent"][-1] == statistics
    # Gradients live where they are sent from: nothing is copied there and back.
    assert [sum(each) for each in found["storages"]] == [discriminator, generator]
    assert sum(map(len, found["storages"])) == len(found["sent"]) - 1
