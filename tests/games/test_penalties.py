"""Each penalty against its closed form, and on two ranks against one."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from ganrun.config.registry import PENALTIES
from ganrun.games.penalties import Penalties, slope
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training.new_state import new_state
from tests.conftest import config_of
from tests.ranks import as_ranks

CPU = torch.device("cpu")
OF_SENTENCES = {"matching_aware"}
"""In test_text.py, and on several ranks in worker/test_equality.py."""
DRAW = KeyedNoise(0, 0, 0, 0, CPU, torch.float64)
STREAM = torch.Generator().manual_seed(1)
REAL, FAKE = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=STREAM)
DIRECTION = torch.randn(48, dtype=torch.float64, generator=STREAM)

# Of |w|, for D(x) = w x + b, whose gradient is w everywhere: the value, and its derivative by |w|.
ON_A_LINE = {
    "wgan_gp": (lambda norm: (norm - 1) ** 2, lambda norm: 2 * (norm - 1)),
    "wgan_lp": (lambda norm: max(0.0, norm - 1) ** 2, lambda norm: 2 * max(0.0, norm - 1)),
    "r1": (lambda norm: norm**2 / 2, lambda norm: norm),
    "r2": (lambda norm: norm**2 / 2, lambda norm: norm),
    "dragan": (lambda norm: (norm - 1) ** 2, lambda norm: 2 * (norm - 1)),
}

# For D(x) = a |x|^2 / 2, whose gradient is a x: the images that each looks at, from what the same draw gives.
EPSILON = DRAW.uniform(5, 1, 1, 1, name="penalty/between")
DELTA = DRAW.normal(5, 3, 4, 4, name="penalty/dragan") * REAL.std() / 2
PLACES = {
    "wgan_gp": EPSILON * REAL + (1 - EPSILON) * FAKE,
    "wgan_lp": EPSILON * REAL + (1 - EPSILON) * FAKE,
    "r1": REAL,
    "r2": FAKE,
    "dragan": REAL + DELTA,
}


def test_every_penalty_has_its_closed_form_here():
    assert set(PENALTIES) - OF_SENTENCES == {*ON_A_LINE, "r1_differences", "r2_differences"}
    assert set(ON_A_LINE) == set(PLACES)


@pytest.mark.parametrize("name", ON_A_LINE)
@pytest.mark.parametrize("norm", [0.3, 1.0, 2.5])
def test_a_penalty_on_a_linear_discriminator_equals_its_closed_form(name, norm):
    weight = (DIRECTION * norm / DIRECTION.norm()).requires_grad_()
    bias = torch.tensor(0.7, dtype=torch.float64)
    value = PENALTIES[name](lambda images, label: images.flatten(1) @ weight + bias, REAL, FAKE, None, DRAW)
    expected, derivative = (form(norm) for form in ON_A_LINE[name])
    assert value.item() == pytest.approx(expected, abs=1e-12)
    value.backward()
    torch.testing.assert_close(weight.grad, derivative * weight.detach() / norm)


@pytest.mark.parametrize("name", PLACES)
def test_a_penalty_looks_at_the_images_that_it_names(name):
    bend = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    value = PENALTIES[name](lambda images, label: bend / 2 * images.square().flatten(1).sum(1), REAL, FAKE, None, DRAW)
    value.backward()
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    norms = a * PLACES[name].flatten(1).norm(dim=1)
    form = {"wgan_lp": lambda n: (n - 1).clamp(min=0) ** 2, "r1": lambda n: n**2 / 2, "r2": lambda n: n**2 / 2}
    expected = form.get(name, lambda n: (n - 1) ** 2)(norms).mean()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(bend.grad, a.grad)


@pytest.mark.parametrize("name", PLACES)
def test_a_discriminator_that_is_flat_has_a_finite_gradient(name):
    bend = torch.zeros((), dtype=torch.float64, requires_grad=True)
    PENALTIES[name](lambda images, label: bend * images.flatten(1).sum(1), REAL, FAKE, None, DRAW).backward()
    assert torch.isfinite(bend.grad)


@pytest.mark.parametrize(("name", "images", "side"), [("r1", REAL, "real"), ("r2", FAKE, "fake")])
def test_finite_differences_are_exact_on_a_quadratic(name, images, side):
    """D(x) = a |x|^2 / 2 + w x: a difference is the derivative along its noise; the mean square is |nabla D|^2."""

    def discriminator(images, label):
        flat = images.flatten(1)
        return bend / 2 * flat.square().sum(1) + flat @ DIRECTION

    bend = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    penalty = PENALTIES[f"{name}_differences"]
    value = penalty(discriminator, REAL, FAKE, None, DRAW)
    value.backward()
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    noise = DRAW.normal(*images.shape, name=f"penalty/differences/{side}").flatten(1)
    expected = ((a * images.flatten(1) + DIRECTION) * noise).sum(1).square().mean() / 2
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(bend.grad, a.grad)

    with torch.no_grad():
        draws = [penalty(discriminator, REAL, FAKE, None, replace(DRAW, images=images)) for images in range(2_000)]
    exact = PENALTIES[name](discriminator, REAL, FAKE, None, DRAW).item()
    found = torch.stack(draws)
    assert abs(found.mean() - exact) < 4 * found.std() / len(found) ** 0.5


def test_finite_differences_of_a_map_of_logits_are_of_its_mean():
    def patches(images, label):
        return images.square().sum(1)

    whole = PENALTIES["r1_differences"](lambda x, y: patches(x, y).flatten(1).mean(1), REAL, FAKE, None, DRAW)
    torch.testing.assert_close(PENALTIES["r1_differences"](patches, REAL, FAKE, None, DRAW), whole)


def test_a_label_goes_with_its_image():
    shades, label = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = slope(lambda images, y: shades[y] * images.flatten(1).sum(1), REAL, label)
    torch.testing.assert_close(found, shades[label] * 48**0.5)


def test_weights_multiply():
    penalties = {name: (PENALTIES[name], weight) for name, weight in (("r1", 3.0), ("wgan_gp", 10.0))}
    found = Penalties(penalties)(lambda images, label: images.flatten(1) @ DIRECTION, REAL, FAKE, None, DRAW)
    norm = DIRECTION.norm().item()
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"r1": 3 * norm**2 / 2, "wgan_gp": 10 * (norm - 1) ** 2}
    )


# In the game.


def play_of(values, slots=1, **changes):
    config = config_of(values, data__slots=slots, **changes)
    return new_state(config, CPU, Slots(slots))


def batches(slots=1, size=12, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return [
        {"image": torch.randint(0, 256, (size, 1, 16, 16), dtype=torch.uint8, generator=stream)} for _ in range(slots)
    ]


def test_penalties_leave_no_trace_in_running_statistics(values):
    kept = []
    for penalties in ({}, {"r1": 10.0, "wgan_gp": 1.0}):
        state = play_of(
            values,
            objective__penalties=penalties,
            optimizer__discriminator={"learning_rate": 1e-30},
            data__batch_size=12,
        )
        state.round(batches)
        norms = [
            module for module in state.game.networks["discriminator"].modules() if isinstance(module, SlotBatchNorm2d)
        ]
        kept.append(torch.cat([torch.cat([norm.running_mean, norm.running_var]) for norm in norms]))
    torch.testing.assert_close(*kept)


def records_of(state, rounds):
    """The discriminator's records of so many rounds."""
    found, player_step = [], state.player_steps[0]
    take = player_step.apply
    player_step.apply = lambda *arguments: (found.append(take(*arguments)), found[-1])[1]
    for number in range(rounds):
        state.round(lambda number=number: batches(seed=number))
    return [record.rows[0] for record in found]


def test_a_lazy_penalty_comes_in_every_third_round_and_counts_three_times(values):
    settings = {"optimizer__discriminator": {"learning_rate": 1e-30}, "optimizer__generator": {"learning_rate": 1e-30}}
    plain = records_of(play_of(values, **settings), 5)
    always = records_of(play_of(values, objective__penalties={"r1": 4.0}, **settings), 5)
    lazy = records_of(
        play_of(values, objective__penalties={"r1": 4.0}, objective__penalty_every_rounds=3, **settings), 5
    )
    assert ["penalty/r1" in row for row in lazy] == [True, False, False, True, False]
    for number in range(5):
        once = (always[number]["loss/discriminator"] - plain[number]["loss/discriminator"]).item()
        added = (lazy[number]["loss/discriminator"] - plain[number]["loss/discriminator"]).item()
        assert once > 0
        assert added == pytest.approx(3 * once if number % 3 == 0 else 0.0)


def test_all_turns_of_a_round_have_the_penalty_or_none(values):
    changes = {"objective__penalties": {"r1": 1.0}, "objective__penalty_every_rounds": 2}
    rows = records_of(play_of(values, objective__discriminator_turns=2, **changes), 3)
    assert ["penalty/r1" in row for row in rows] == [True, True, False, False, True, True]


def test_under_autocast_a_penalty_keeps_the_digits_of_the_weights(values):
    state = play_of(values, train__precision="bf16", objective__penalties={"r1": 1.0, "r2": 1.0})
    batch, noise = state.normalise(batches()[0]), next(state._noises(0, 0))
    with torch.autocast("cpu", torch.bfloat16):
        parts = state.game.players[0](batch, noise, {"generator": state.game.networks["generator"]}).parts
    exact = PENALTIES["r1"](state.game.networks["discriminator"], batch["image"], batch["image"], None, noise)
    assert parts["penalty/r1"].dtype == torch.float32
    assert torch.equal(parts["penalty/r1"], exact.detach())


def turn_gradients(rank, workers, config, rendezvous, out):
    """Saves the discriminator's gradients of one turn with each penalty alone."""
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    gradients = {}
    for name in [name for name in PENALTIES if name not in OF_SENTENCES]:
        each = config.model_copy(update={"objective": config.objective.model_copy(update={"penalties": {name: 10.0}})})
        state = new_state(each, CPU, Slots(each.slots, rank, workers))
        owned = state.slots.owned
        mine = [state.normalise(batch) for batch in batches(each.slots, size=2)[owned.start : owned.stop]]
        state.player_steps[0].step(mine, list(state._noises(0, 0)), torch.tensor(1e-3))
        gradients |= {f"{name}/{key}": value.grad for key, value in state.player_steps[0].parameters.items()}
    if rank == 0:
        save_file({key: value.contiguous() for key, value in gradients.items()}, out)
    if workers > 1:
        dist.destroy_process_group()


def test_two_ranks_have_the_gradients_of_one(values, tmp_path):
    config = config_of(values)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    turn_gradients(0, 1, config, "", one)
    as_ranks(turn_gradients, (2, config, str(tmp_path / "meeting"), two), 2)
    expected, found = load_file(one), load_file(two)
    assert found.keys() == expected.keys()
    assert len({key.split("/")[0] for key in found}) == len(PENALTIES) - len(OF_SENTENCES)
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=1e-6, msg=key)
        assert gradient.abs().sum() > 0
    assert not torch.equal(found["r1/discriminator.layers.0.weight"], found["r2/discriminator.layers.0.weight"])
