"""Networks of which a turn, a slot or a whole run uses only parts: the same on one worker and on several."""

import pytest
import torch

from ganrun.data.index import open_data
from ganrun.data.made_up import MadeUpBatches
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.ranks import latest_tensors, run_ranks

GAMES = ("spare", "lazy", "by_slot", "twice_in_one_slot", "other_in_last_slot")


@pytest.fixture
def run(values, tmp_path):
    """Run a game of tests/own_games.py for ten rounds; return the tensors of its checkpoint."""
    values["run"]["imports"] = ["tests.own_games"]
    values["telemetry"] = {"sample_images": 4}
    values["train"] |= {"total_images": 120}
    values["objective"] = {}

    def make(game, workers):
        config = config_of(values, run__name=f"{game}-{workers}", objective__game=game)
        run_ranks(config, workers, tmp_path / f"{game}-{workers}")
        return latest_tensors(config)

    return make


@pytest.mark.parametrize("game", GAMES)
def test_two_workers_train_as_one(run, game):
    one, two = run(game, 1), run(game, 2)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-9, msg=name)
    names = [name for name in one if name.startswith("optimizer_")]
    assert names
    assert not [name for name in names if ".parts.2." in name or ".parts.3." in name]
    steps = one["optimizer_fitter/parts.parts.1.0.weight.step"].item()
    assert steps == (4 if game == "lazy" else 10)


@pytest.mark.parametrize("game", GAMES)
def test_running_statistics_move_in_slots_that_ran_the_layer(values, game):
    values["run"]["imports"] = ["tests.own_games"]
    config = config_of(values, objective__game=game)
    state = new_state(config, torch.device("cpu"), Slots(6))
    batches, seen = MadeUpBatches(config.data, open_data(config.data.shards)), {}
    parts = state.game.networks["parts"].parts

    def means(module, inputs, output):
        seen.setdefault(module, {}).setdefault(module.slot, []).append(inputs[0].detach().mean((0, 2, 3)))

    norms = [module for module in parts.modules() if isinstance(module, SlotBatchNorm2d)]
    for norm in norms:
        norm.register_forward_hook(means)
    for _ in range(2):
        before = [norm.running_mean.clone() for norm in norms]
        seen.clear()
        state.round(lambda: [batches.next(2) for _ in range(6)])
        for norm, mean in zip(norms, before, strict=True):
            slots = [torch.stack(passes).mean(0) for passes in seen.get(norm, {}).values()]
            expected = 0.9 * mean + 0.1 * torch.stack(slots).mean(0) if slots else mean
            torch.testing.assert_close(norm.running_mean, expected)
    assert norms[3].running_mean.abs().sum() == 0
    assert norms[0].running_mean.abs().sum() > 0
