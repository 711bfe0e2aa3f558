"""The condition `low_resolution` against Pillow, its degradations, and its networks."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.errors import UserError
from ganrun.games.build import build_game
from ganrun.games.conditions import UserInput
from ganrun.games.low_resolution import LowResolution, bicubic, blur, grain, jpeg
from ganrun.rng import KeyedNoise
from tests.conftest import config_of
from tests.families import values_of

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float32)


def levels(channels: int, size: int = 64, count: int = 2) -> torch.Tensor:
    """Return random smooth pictures of 256 levels, uint8 [count, C, S, S]."""
    coarse = torch.rand(count, channels, 9, 9, generator=torch.Generator().manual_seed(channels))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def pillow(picture: torch.Tensor, size: int) -> np.ndarray:
    """Return a picture uint8 [C, S, S] at another size by Pillow's bicubic, before rounding: float [C, size, size]."""
    planes = [Image.fromarray(plane.numpy().astype(np.float32), mode="F") for plane in picture]
    return np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)) for plane in planes])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_pictures_are_pillows(channels, factor):
    pictures = levels(channels)
    given = LowResolution("image", channels, factor).of({"image": pictures / 127.5 - 1}, NOISE)
    small, large = ((given[name] + 1) * 127.5 for name in ("low_resolution", "upscaled"))
    assert torch.equal(small.round(), small.round().clamp(0, 255))
    assert (small - small.round()).abs().max() < 1e-4  # 256 levels, as a file has.
    for picture, found, enlarged in zip(pictures, small, large, strict=True):
        exact = pillow(picture, 64 // factor).clip(0, 255)
        assert np.abs(found.numpy() - exact).max() <= 0.501
        again = pillow(found.round().to(torch.uint8), 64).clip(0, 255)
        assert np.abs(enlarged.numpy() - again).max() < 1e-2


def test_the_baseline_is_bicubic_and_a_users_picture_is_the_small_one():
    condition = LowResolution("image", 1, 4)
    small = torch.rand(3, 12, 20) * 2 - 1
    given = condition.from_user(UserInput("cat.png", picture=small))
    assert given["low_resolution"].shape == (1, 1, 12, 20)
    assert condition.baselines["bicubic"](given).shape == (1, 1, 48, 80)
    assert condition.show(given).shape == (1, 1, 48, 80)
    with pytest.raises(UserError, match=r"a\.txt: this run enlarges pictures; give a picture"):
        condition.from_user(UserInput("a.txt", text="a cat"))


def test_jpeg_is_that_of_pillow_at_each_quality():
    """Of luma alone, which Pillow stores without subsampling: a difference of a level is rounding."""
    picture = levels(1, 64, 1)
    for value in (0.0, 0.3, 0.999):
        quality = int(30 + 65 * value)

        class Quality:
            def take(self, noise, request, value=value):
                return torch.full(request.size, (int(30 + 65 * value) - 30) / 65)

        noise = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float32, source=Quality())
        ours = (jpeg(picture / 127.5 - 1, noise) + 1) * 127.5
        stream = io.BytesIO()
        Image.fromarray(picture[0, 0].numpy()).save(stream, "JPEG", quality=quality)
        theirs = torch.from_numpy(np.asarray(Image.open(stream)).copy()).float()
        error = (ours[0, 0].clamp(0, 255) - theirs).abs()
        assert error.mean() < 0.6, quality
        assert (theirs - picture[0, 0].float()).abs().mean() > 2 * error.mean() or quality > 90


@pytest.mark.parametrize("channels", [1, 3])
def test_degradations_are_drawn_for_each_image_and_repeat(channels):
    pictures = levels(channels, 40).repeat(2, 1, 1, 1) / 127.5 - 1  # Twice the same: told apart by their draws.
    for degrade in (blur, grain, jpeg):
        found = degrade(pictures, NOISE)
        assert found.shape == pictures.shape
        assert torch.equal(found, degrade(pictures, NOISE))
        assert not torch.allclose(found[:2], found[2:])
        assert not torch.allclose(found, pictures)
    flat = torch.full((1, channels, 16, 16), 0.25)
    torch.testing.assert_close(blur(flat, NOISE), flat)
    assert (jpeg(flat, NOISE) - flat).abs().max() < 0.1
    for side in (12, 17):  # No multiple of 8.
        assert jpeg(torch.zeros(1, channels, side, side), NOISE).shape == (1, channels, side, side)
    noisy = LowResolution("image", channels, 4, ("jpeg", "noise", "blur")).of({"image": pictures}, NOISE)
    plain = LowResolution("image", channels, 4).of({"image": pictures}, NOISE)
    assert noisy["low_resolution"].shape == plain["low_resolution"].shape
    assert not torch.allclose(noisy["low_resolution"], plain["low_resolution"])


@pytest.mark.parametrize("name", ["srgan", "esrgan"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_networks_begin_at_the_baseline_and_enlarge_pictures_of_any_shape(values, name, factor):
    values = values_of("srgan", values)
    values["model"] |= {"name": name, "spectral_norm": name == "esrgan"}
    values["objective"] |= {"low_resolution": {"factor": factor}}
    game = build_game(config_of(values), torch.device("cpu"))
    generator, discriminator = game.networks["generator"].eval(), game.networks["discriminator"]
    given = game.condition.from_user(UserInput("a.png", picture=torch.rand(1, 5, 8) * 2 - 1))
    given = {key: picture.double() for key, picture in given.items()}
    made = generator(given)
    assert made.shape == (1, 1, 5 * factor, 8 * factor)
    assert 0 < (made - given["upscaled"]).abs().max() < 0.1
    assert discriminator(torch.zeros(3, 1, 16, 16, dtype=torch.float64), {}).shape == (3,)
    whole = bicubic(torch.zeros(1, 1, 16, 16), 16 // factor)
    assert whole.shape == (1, 1, 16 // factor, 16 // factor)


def test_the_first_stage_has_no_discriminator_and_counts_its_images(values):
    from ganrun.slots import Slots
    from ganrun.training.new_state import new_state
    from tests.training.test_replay import batches_of

    values = values_of("srgan", values)
    config = config_of(values)
    state = new_state(config, torch.device("cpu"), Slots(config.slots))
    before = {name: tensor.clone() for name, tensor in state.game.networks["discriminator"].state_dict().items()}
    seen = []
    for _ in range(20):
        state.round(lambda: batches_of(config, 1))
        after = state.game.networks["discriminator"].state_dict()
        changed = any(not torch.equal(before[name], tensor) for name, tensor in after.items())
        seen.append((state.images, changed))
    assert seen == [(12 * round, round > 10) for round in range(1, 21)]  # reconstruct_first_images: 120
