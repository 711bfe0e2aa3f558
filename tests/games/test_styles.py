"""Style mixing and path length regularisation: closed forms, rounds, any number of workers, a stop."""

import math

import pytest
import torch
from torch import nn

from ganrun.games.latent import Latent
from ganrun.games.styles import PathLength, mixed, path_lengths
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.families import values_of
from tests.ranks import latest_tensors, run_ranks
from tests.recorded import ganrun
from tests.training.test_replay import Rounds

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float64)
LAYERS, SIZE, STOP = 3, 4, 36


class Linear(nn.Module):
    """Generator whose images are a linear function of the w of each layer: sum over l of a A_l w_l."""

    layers, w_size, truncation = LAYERS, 5, 1.0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        random = torch.Generator().manual_seed(0)
        self.maps = torch.randn(LAYERS, SIZE * SIZE, 5, dtype=torch.float64, generator=random)

    def mapping(self, z, given=None):
        return z

    def synthesis(self, w, noise=None):
        return self.scale * torch.einsum("lpz,blz->bp", self.maps, w).view(-1, 1, SIZE, SIZE)

    def truncated(self, w):
        return w


def w_of(count):
    return torch.randn(count, LAYERS, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_path_lengths_of_a_linear_generator():
    generator, w = Linear(), w_of(6).requires_grad_()
    lengths = path_lengths(generator, w, NOISE)
    y = NOISE.normal(6, 1, SIZE, SIZE, name="y").flatten(1) / SIZE
    # |J_l^T y| = a |A_l^T y| whatever w is; the root of its mean square over layers.
    of_layers = torch.einsum("lpz,bp->blz", generator.maps, y).norm(dim=2)
    unscaled = of_layers.square().mean(1).sqrt()
    torch.testing.assert_close(lengths, 1.5 * unscaled)
    penalty = PathLength(weight=2.0, every_rounds=4).double()
    penalty.mean.fill_(0.7)
    loss = penalty(lengths, NOISE)
    torch.testing.assert_close(loss, 8 * (1.5 * unscaled - 0.7).square().mean())
    (gradient,) = torch.autograd.grad(loss, generator.scale)
    torch.testing.assert_close(gradient, 16 * ((1.5 * unscaled - 0.7) * unscaled).mean())


def test_the_running_mean_skips_what_is_not_finite():
    penalty = PathLength(2.0, 4).double()
    for value, expected in ((5.0, 0.05), (math.nan, 0.05), (10.0, 0.05 * 0.99 + 0.1)):
        penalty.update(torch.tensor(value, dtype=torch.float64), 12)
        assert penalty.mean.item() == pytest.approx(expected)
    assert [penalty.is_due(number) for number in range(6)] == [True, False, False, False, True, False]
    assert not PathLength(0.0, 4).is_due(0)


def test_mixed_styles_are_those_of_two_z_from_a_layer_on():
    generator, latent = Linear(), Latent(5)
    generator.layers = 8
    z = latent.draw(NOISE, 4_000, "z")
    w = mixed(generator, latent, z, {}, NOISE, 0.9)
    own = (w == z[:, None]).all(2)
    begins = own.sum(1)  # The first layer of the other z; 8 where there is none.
    assert (own == (torch.arange(8) < begins[:, None])).all()  # The coarse layers are its own.
    shares = torch.bincount(begins, minlength=9) / 4_000
    assert shares[0] == 0
    assert abs(shares[8] - 0.1) < 0.02
    assert (shares[1:8] - 0.9 / 7).abs().max() < 0.02
    other = latent.draw(NOISE, 4_000, "mixing/z")
    assert torch.equal(w[begins < 8, 7], other[begins < 8])
    assert mixed(generator, latent, z, {}, NOISE, 0.0).eq(z[:, None]).all()


def test_a_round_moves_the_mean_length_and_the_mean_w(values):
    rounds = Rounds(config_of(values_of("stylegan2", values)))
    state, generator = rounds.state, rounds.state.game.networks["generator"]
    seen = []
    generator.w_average.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].mean(0)) if inputs[0].requires_grad else None
    )
    rounds.eager(1)
    mean, means = state.game.trackers["path_length"].mean.item(), torch.stack(seen)
    lengths = state.recorder.read()[0]["loss/generator/path_length"]
    assert mean == pytest.approx(0.01 * lengths)
    assert lengths > 0
    # Each of two slots: w of z and of the other z of mixed styles; then those of the penalty, which do not count.
    means = means.view(2, 4, -1)[:, :2]
    torch.testing.assert_close(generator.w_average.mean, 0.005 * means.mean((0, 1)).detach())
    rounds.eager(1)  # Without the penalty.
    assert state.game.trackers["path_length"].mean.item() == mean


def test_the_average_is_drawn_without_mixed_styles(values):
    state = new_state(config_of(values_of("stylegan2", values)), torch.device("cpu"), Slots(1))
    networks = state.ema_networks
    noise, game = NOISE.under("evaluate"), state.game
    images = game.sample(networks, 3, noise, {})
    assert torch.equal(images, game.from_z(networks, game.latent.draw(noise, 3, "z"), noise, {}))
    assert not torch.equal(images, game.sample(game.networks, 3, noise, {}))


def test_workers_and_a_stop_do_not_enter(values, tmp_path):
    def config(name):
        changed = values_of("stylegan2", values)
        return config_of(changed, run__name=name, data__image_size=16, train__total_images=72)

    one, two = config("one"), config("two")
    run_ranks(one, 1, tmp_path / "one")
    run_ranks(two, 2, tmp_path / "two", stop_at=STOP)
    run_ranks(two, 2, tmp_path / "on")
    expected, found = latest_tensors(one), latest_tensors(two)
    assert expected.keys() == found.keys()
    assert found["path_length/mean"] > 0
    assert found["generator_ema/w_average.mean"].abs().max() > 0
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)
    parts = config("parts")
    run_ranks(parts, 1, tmp_path / "first", stop_at=STOP)
    run_ranks(parts, 1, tmp_path / "second")
    assert [name for name, each in latest_tensors(parts).items() if not torch.equal(each, expected[name])] == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.image_size=48"], ["data.image_size: 48", "stylegan2", "32, 64"]),
        (
            ["model.name=dcgan"],
            ["objective.style_mixing: 0.9", "objective.path_length: 2.0", "dcgan", "take stylegan2"],
        ),
        (["model.minibatch_stddev=true"], ["model.minibatch_stddev: true", "stylegan2"]),
        (["objective.style_mixing=1.5"], ["objective.style_mixing: 1.5 is not allowed", "less than 1"]),
        (["objective.path_length=-1"], ["objective.path_length: -1"]),
    ],
)
def test_faults_of_the_config_are_named(overrides, words):
    code, _, said = ganrun("train", "configs/stylegan2_64.yaml", "--dry-run", *overrides)
    assert code == 2
    assert [word for word in words if word not in said] == []
    assert "Traceback" not in said
