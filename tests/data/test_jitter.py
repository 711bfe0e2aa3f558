"""`data.jitter`: enlarged and cut alike on all pictures of a sample, by keys, in training only."""

import pytest
import torch

from ganrun.data.jitter import jittered
from ganrun.rng import KeyedNoise
from tests.conftest import config_of, write_yaml
from tests.games.test_gan import CPU, Source, play_of
from tests.recorded import ganrun

SIZE, JITTER = 16, 0.25


def noise_of(slot):
    return KeyedNoise(0, 0, 0, slot, CPU, torch.float64)


def ramp(size):
    """Pictures whose brightness is the column, from -1 to 1 at the borders, and rises alike along the rows."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1
    return (centres + centres[:, None]).div(2).expand(64, 1, size, size)


def test_a_picture_is_enlarged_and_a_part_of_it_cut_out():
    (found,) = jittered({"image": ramp(SIZE)}, JITTER, noise_of(0)).values()
    inner = found[:, :, 2:-2, 2:-2]  # At the border bicubic resampling repeats pixels.
    steps = inner.diff(dim=3)
    # Keys' kernel of -0.75, which torch has, bends a ramp by up to a tenth.
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / SIZE / (1 + JITTER)), rtol=0.1, atol=0)
    torch.testing.assert_close(steps.mean(), torch.tensor(1 / SIZE / (1 + JITTER)).double(), rtol=0.02, atol=0)
    centres = found.mean((1, 2, 3))
    reach = 1 - 1 / (1 + JITTER)
    assert centres.abs().max() < reach
    assert centres.max() - centres.min() > reach
    assert len(centres.unique()) == 64


def test_all_pictures_of_a_sample_are_jittered_alike_and_nothing_else():
    images, label, text = ramp(SIZE), torch.arange(64), ["a"] * 64
    batch = {"image": images, "lines": images.expand(-1, 3, -1, -1), "small": ramp(8), "label": label, "text": text}
    point = torch.ones(64, 2, 1, 1, dtype=torch.float64)
    found = jittered(batch | {"point": point}, JITTER, noise_of(0))
    assert torch.equal(found["lines"], found["image"].expand(-1, 3, -1, -1))
    places = [found[name].mean((1, 2, 3)) for name in ("image", "small")]
    torch.testing.assert_close(*places, rtol=0, atol=0.02)
    assert (found["label"], found["text"], found["point"]) == (label, text, point)
    assert jittered({"point": point}, JITTER, noise_of(0)) == {"point": point}
    assert not torch.equal(found["image"], jittered(batch, JITTER, noise_of(1))["image"])
    assert torch.equal(found["image"], jittered(batch, JITTER, noise_of(0))["image"])


def test_pixels_stay_in_range():
    extreme = torch.randint(0, 2, (64, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    (found,) = jittered({"image": extreme}, JITTER, noise_of(0)).values()
    assert (found.min(), found.max()) == (-1, 1)


@pytest.mark.parametrize("jitter", [0.0, JITTER])
def test_training_sees_a_new_jitter_in_each_round(values, monkeypatch, jitter):
    state, seen = play_of(values, data__slots=1, data__jitter=jitter), []
    player = state.player_steps[0].player
    forward = player.forward
    monkeypatch.setattr(player, "forward", lambda batch, *rest: seen.append(batch["image"]) or forward(batch, *rest))
    source = Source()
    state.round(source)
    state.images = 0  # The noise of the first round, and other images.
    state.round(source)
    for number, image in enumerate(seen):
        plain = state.normalise({"image": source.given[number][0]})
        expected = jittered(plain, jitter, noise_of(0)) if jitter else plain
        assert torch.equal(image, expected["image"])


def test_faults_are_told(values, tmp_path):
    file = write_yaml(tmp_path / "run.yaml", values)
    assert config_of(values, data__jitter=0.117).data.jitter == 0.117
    for override, words in (
        ("data.jitter=1.5", "data.jitter: 1.5 is not allowed; it should be: less than 1"),
        ("data.jitter=-1", "data.jitter: -1"),
    ):
        code, _, said = ganrun("train", file, "--dry-run", override)
        assert (code, words in said) == (2, True), said
