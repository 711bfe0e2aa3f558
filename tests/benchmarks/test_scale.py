"""What `ganrun bench scale` counts is what there is, and what it makes of it follows."""

import json

import pytest
from torch.utils.flop_counter import FlopCounterMode

from ganrun import bench
from ganrun.benchmarks import scale
from ganrun.benchmarks import unit_costs as units
from ganrun.games.build import build_game
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training.checkpoint import RunProgress, take_snapshot
from tests.conftest import config_of, write_yaml


@pytest.fixture(scope="module")
def counted(tmp_path_factory, data_folder):
    """The units of a small run, as two ranks count them."""
    from tests.conftest import small_run

    config = config_of(small_run(tmp_path_factory.mktemp("runs"), data_folder), train__precision="float32")
    return config, scale.count(config)


def test_each_players_gradients_are_summed_and_no_others(counted):
    config, found = counted
    players = build_game(config, units.torch.device("cpu")).players
    assert found.round.gradient_bytes == {
        player.name: sum(4 * parameter.numel() for parameter in player.owned.parameters()) for player in players
    }
    assert (found.round.turns, found.round.fresh_turns) == ({"discriminator": 1, "generator": 1}, 1)


def test_norms_are_summed_once_a_round_by_the_slot(counted):
    config, found = counted
    norms = units.played(units.small(config), Slots(1))._norms
    assert found.round.norm_bytes == sum((2 * norm.num_features + 1) * 4 for norm in norms)  # And whether it ran.
    assert found.round.sums >= 3  # A bucket of each player, and the norms.


def test_operations_are_those_of_an_image(counted):
    """Counted over two images by two ranks; here over two by one."""
    config, found = counted
    state = units.played(units.small(config), Slots(1))
    with FlopCounterMode(display=False) as flops:
        units._round(state, config)
    assert found.round.flops == flops.get_total_flops() / 2
    assert 100 < found.round.operations < 2_000


def test_a_checkpoint_is_counted_as_it_is_written(counted):
    config, found = counted
    state = units.played(units.small(config), Slots(1))
    files = take_snapshot(state.state_dict(), RunProgress(), config.to_yaml()).files()
    assert sum(map(len, files.values())) < found.stored.checkpoint_bytes < sum(map(len, files.values())) + 4_000
    assert (found.stored.checkpoint_requests, found.stored.resume_requests) == (None, None)
    assert open_storage(config.run.storage).objects() == {}  # Nothing stays.


def test_a_run_of_many_gpus_is_loaded_with_what_it_has_of_each(counted):
    config, found = counted
    few, many = scale.load(found, 8), scale.load(found, 64)
    assert many["all-reduce"] > few["all-reduce"]
    assert 4_000 * (many["series of the sidecar"] - few["series of the sidecar"]) == pytest.approx(2 * 56)
    assert many["CPUs that decode"] == few["CPUs that decode"]
    assert many["GETs of shards"] > few["GETs of shards"]
    assert "GETs of shards" not in scale.load(found, 1024)  # More GPUs than the 141 samples.
    assert config.checkpoint.every_images == 0
    assert "checkpoint after checkpoint" not in few


def test_a_checkpoint_is_broadcast_as_fast_as_the_slowest_link():
    """Of its two chunks each waits for a message on each level of the tree."""
    size = 100 * 2**20
    assert scale.broadcast_seconds(size, 8) == pytest.approx(size / 200e9 + 2 * 3 * 20e-6)
    assert scale.broadcast_seconds(size, 1024) == pytest.approx(size / 12.5e9 + 2 * 10 * 20e-6)


def test_the_command_counts_requests_on_object_storage(s3, values, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "MANY_SHARDS", 2_000)
    monkeypatch.setattr(scale, "MANY_SAMPLES", 10)
    values["run"]["storage"] = s3
    path = write_yaml(tmp_path / "run.yaml", values)
    assert bench.main(["scale", str(path), "checkpoint.keep=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["what"], found["peer"], found["ratio"]) == ("scale", None, None)
    assert found["units"]["requests_a_renewal_of_the_lease"] == 2
    # Ten files, the pointer read and moved and the attempts listed; then the old one listed and deleted.
    assert 10 + 3 + 4 <= found["units"]["requests_a_checkpoint"] <= 40
    # Eight files and the manifest; attempts counted, begun and told; the pointer read and moved, checkpoints listed.
    assert 9 + 3 + 3 <= found["units"]["requests_a_resume"] <= 40
    assert found["lanes"]["shown_again"] == 0
    assert found["lanes"]["lane_lengths"] == [2_000 * 10 // 1024]
    assert found["loads"][str(found["bottleneck_gpus"])][found["bottleneck"]] == found["limit_share"] > 1
    within = [loads for gpus, loads in found["loads"].items() if int(gpus) <= found["ours"]]
    assert within
    assert max(share for loads in within for share in loads.values()) <= 1
    assert open_storage(s3).objects() == {}


def test_a_folder_is_told_that_it_makes_no_requests(values, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "MANY_SHARDS", 2_000)
    monkeypatch.setattr(scale, "MANY_SAMPLES", 10)
    path = write_yaml(tmp_path / "run.yaml", values)
    assert bench.main(["scale", str(path), "cluster.gpus_per_worker=1"]) == 0
    said = capsys.readouterr().out
    assert "not counted: run.storage is a folder" in said
    assert "20,000 samples in 1,024 lanes: 19,456 shown, 0 of them again" in said
