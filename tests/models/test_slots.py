"""Networks with a state beside their weights (running statistics by class, vectors of the power iteration): neither
the number of workers nor a stop enters."""

import pytest
import torch

from ganrun.config.registry import NETWORKS
from tests.conftest import config_of
from tests.models.pairs import CLASSES, LATENT, WIDTHS
from tests.ranks import latest_tensors, run_ranks

STOP = 132
STATE = ("discriminator/embedding.u", "generator/blocks.0.norm1.running_var")


def config(values, name="resnet", **changes):
    values["data"]["fields"] = {"image": "image", "label": "label"}
    values["model"] = {"name": name, "width": WIDTHS[name], "latent_size": LATENT, "classes": CLASSES}
    for switch in ("spectral_norm", "minibatch_stddev"):
        values["model"][switch] = switch not in NETWORKS[name].without
    return config_of(values, objective__loss="hinge", **changes)


def test_workers_and_a_stop_do_not_enter(values, tmp_path):
    one, two = (config(values, run__name=name) for name in ("one", "two"))
    run_ranks(one, 1, tmp_path / "one")
    run_ranks(two, 2, tmp_path / "two", stop_at=STOP)
    stopped = latest_tensors(two)
    run_ranks(two, 2, tmp_path / "on")
    expected, found = latest_tensors(one), latest_tensors(two)
    assert expected.keys() == found.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)
    for name in STATE:
        assert not torch.allclose(stopped[name], found[name])


def test_stop_and_resume_equals_never_stopped_bit_for_bit(values, tmp_path):
    whole, parts = (config(values, run__name=name, train__precision="float32") for name in ("whole", "parts"))
    run_ranks(whole, 1, tmp_path / "whole")
    run_ranks(parts, 1, tmp_path / "first", stop_at=STOP)
    run_ranks(parts, 1, tmp_path / "second")
    resumed, expected = latest_tensors(parts), latest_tensors(whole)
    for name, tensor in resumed.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("name", ["dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_short_game_is_played(values, tmp_path, name, precision):
    tensors = []
    for total in (12, 60):
        run = config(values, name, run__name=str(total), train__precision=precision, train__total_images=total)
        run_ranks(run, 1, tmp_path / "meeting")
        tensors.append(latest_tensors(run))
    for key, tensor in tensors[1].items():
        assert torch.isfinite(tensor).all(), key
        if key.startswith(("generator/", "discriminator/")) and key.endswith("weight"):
            assert not torch.equal(tensor, tensors[0][key]), key
