"""Numbers of a round: those of the size of images, which a GPU draws itself, are keyed like all others."""

import torch

from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.training import round_inputs
from ganrun.training.new_state import new_state
from ganrun.training.round_inputs import MAP_NUMBERS, RoundNoise
from tests.conftest import config_of
from tests.gpu import GPU
from tests.training.test_replay import Rounds, batches_of, check

CPU = torch.device("cpu")


def noises(source, images, device=CPU):
    """Return the noise of two slots of a round."""
    return [KeyedNoise(1, 0, images, slot, device, torch.float32, source=source) for slot in (0, 1)]


def drawn(source, images, device=CPU, reverse=False):
    """Draw images and latents of both slots, and return them by slot and name."""
    of_slots = noises(source, images, device)
    found = {}
    for noise in reversed(of_slots) if reverse else of_slots:
        for name, size in (("z", (400, 2)), ("pixels", (4, 3, 8, 8)), ("mask", (4, 1, 8, 8))):
            draw = noise.uniform if name == "mask" else noise.normal
            found[noise.slot, name] = draw(*size, name=name).clone()
    return found


def filled(source, images, device=CPU):
    """Fill the numbers of the round after `images`."""
    source.fill(lambda before: noises(None, images, device)[before.slot])


def equal(mine, other):
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[place], other[place]) for place in mine)


def test_numbers_of_the_device_are_a_function_of_their_keys():
    ahead, first = RoundNoise(torch.float32, CPU, fewest=100), RoundNoise(torch.float32, CPU, fewest=100)
    drawn(ahead, 0)
    filled(ahead, 10)
    assert ahead.is_complete
    # Drawn ahead, at a first call and in another order, as after a resume; and as a host draws all of them.
    equal(drawn(ahead, 10), drawn(first, 10, reverse=True))
    equal(drawn(ahead, 10), drawn(None, 10))
    assert ahead.is_complete


def test_numbers_of_the_device_stay_in_place_and_take_no_host_memory():
    source = RoundNoise(torch.float32, CPU, fewest=100)
    noise = noises(source, 0)[0]
    pixels, z = noise.normal(4, 3, 8, 8, name="pixels"), noise.normal(400, 2, name="z")
    before = pixels.clone()
    filled(source, 10)
    assert noise.normal(4, 3, 8, 8, name="pixels") is pixels
    assert not torch.equal(pixels, before)
    assert len(source._spans) == 1
    assert noise.normal(400, 2, name="z").data_ptr() == source._ring.block.data_ptr()
    assert z.shape == (400, 2)  # Not over pixels, however many.


def test_a_cpu_draws_all_numbers_as_before():
    assert RoundNoise(torch.float32, CPU).fewest is None


def test_rounds_whose_noise_the_device_draws_are_replayed(values, monkeypatch):
    """And they are the rounds that a host draws for, since here both have the same generator."""
    config = config_of(
        values | {"objective": {"instance_noise": 0.5, "instance_noise_images": 1_000}},
        data__slots=2,
        train__total_images=100_000,
    )
    host = Rounds(config)
    host.eager(3)
    original = RoundNoise.__init__
    monkeypatch.setattr(
        RoundNoise, "__init__", lambda self, dtype, device, fewest=None: original(self, dtype, device, 20)
    )
    check(config)
    device = Rounds(config)
    device.eager(3)
    (inputs,) = device.state._inputs.values()
    assert len(inputs.noise._spans) < len(inputs.noise._requests)
    equal(device.tensors(), host.tensors())


@GPU
def test_a_gpu_draws_numbers_over_pixels_itself_and_the_same_again():
    device = torch.device("cuda", 0)
    noise = RoundNoise(torch.float32, device)
    assert noise.fewest == MAP_NUMBERS
    sources = [RoundNoise(torch.float32, device, fewest=100) for _ in range(2)]
    for source in sources:
        drawn(source, 0, device)
        filled(source, 10, device)
    mine, again = drawn(sources[0], 10, device), drawn(RoundNoise(torch.float32, device, fewest=100), 10, device)
    equal(mine, again)
    assert abs(float(mine[0, "pixels"].mean())) < 0.2
    host = drawn(None, 10, device)
    assert torch.equal(mine[0, "z"], host[0, "z"])
    assert not torch.equal(mine[0, "pixels"], host[0, "pixels"])


@GPU
def test_captured_rounds_with_noise_of_the_device_are_the_eager_ones(values, monkeypatch):
    from ganrun.training.cuda_graph import captured_rounds

    monkeypatch.setattr(round_inputs, "MAP_NUMBERS", 20)
    config = config_of(
        values | {"objective": {"instance_noise": 0.5, "instance_noise_images": 10_000}},
        data__slots=2,
        train__total_images=100_000,
    )
    device, found = torch.device("cuda", 0), []
    for mode in ("off", "on"):
        state = new_state(config, device, Slots(config.slots))
        with captured_rounds(state, mode, print):
            for number in range(20):
                batches = batches_of(config, number)
                state.round(lambda batches=batches: [{"image": batch["image"].to(device)} for batch in batches])
        found.append([each.detach().clone() for each in state.game.networks["generator"].parameters()])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
