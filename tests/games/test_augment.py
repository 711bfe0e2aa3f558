"""Augmentation: each transform against its definition, and the strength of ADA, whose transforms are in test_ada.py."""

import math

import pytest
import torch
from torch.nn import functional as F

from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.games.adaptive_augmentation import AdaptiveAugmentation
from ganrun.games.augment import DIFFAUGMENT, Augmentation, InstanceNoise, color, cutout, translation
from ganrun.rng import KeyedNoise

CPU, DOUBLE = torch.device("cpu"), torch.float64
DRAW = KeyedNoise(0, 0, 0, 0, CPU, DOUBLE)


def images_of(count, channels=3, size=16):
    stream = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, size, size, dtype=DOUBLE, generator=stream) * 2 - 1


def adaptive(strength, target=0.6, images=1_000):
    augmentation = AdaptiveAugmentation(("blit",), target, images).double()
    augmentation.strength.fill_(strength)
    return augmentation


EVERY = DIFFAUGMENT | {"noise": InstanceNoise(0.1, 100)}


@pytest.mark.parametrize("name", EVERY)
def test_each_call_has_its_own_randomness_and_the_same_one_again(name):
    images = images_of(8)
    first, again, other = (EVERY[name](images, DRAW, purpose) for purpose in ("a", "a", "b"))
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_generator_learns_through_it(name, channels):
    images = images_of(2, channels, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EVERY[name](x, DRAW, "a"), images, nondet_tol=1e-12)


# DiffAugment.


def test_color_is_the_papers_image_by_image():
    images = images_of(50)
    drawn = DRAW.uniform(3, 50, 1, 1, 1, name="a/color").view(3, 50).tolist()
    for image, found, brightness, saturation, contrast in zip(images, color(images, DRAW, "a"), *drawn, strict=True):
        image = image + (brightness - 0.5)
        image = torch.lerp(image.mean(0, keepdim=True).expand(3, -1, -1), image, 2 * saturation)
        image = torch.lerp(image.mean().expand_as(image), image, 0.5 + contrast)
        torch.testing.assert_close(found, image)


def test_a_translation_is_one_of_all_shifts_within_an_eighth():
    images = images_of(400, 1)
    padded, seen = F.pad(images, (2, 2, 2, 2)), set()
    for number, found in enumerate(translation(images, DRAW, "a")):
        shifts = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(found, padded[number, :, row : row + 16, column : column + 16])
        ]
        assert len(shifts) == 1
        seen |= set(shifts)
    assert len(seen) == 25


def test_a_cutout_is_a_square_of_half_the_size_clipped_at_the_border():
    images = images_of(400, 2)
    found, areas = cutout(images, DRAW, "a"), set()
    for before, after in zip(images, found, strict=True):
        gone = (after != before).all(0)
        assert torch.equal(after, before * ~gone)
        rows, columns = gone.any(1).nonzero().flatten(), gone.any(0).nonzero().flatten()
        assert gone.sum() == len(rows) * len(columns)
        assert int(rows[-1] - rows[0]) + 1 == len(rows)
        areas.add((len(rows), len(columns)))
    assert max(areas) == (8, 8)
    assert min(min(area) for area in areas) == 4


def test_a_config_names_transforms_in_their_order():
    objective = ObjectiveConfig(diffaugment=["cutout", "color"], instance_noise=0.1)
    first, second, added = Augmentation(objective).transforms
    assert (first, second) == (cutout, color)
    assert [added.deviation.at(images) for images in (0, 50_000, 100_000)] == [0.1, 0.05, 0]
    assert Augmentation(ObjectiveConfig()).transforms == []


# Instance noise.


@pytest.mark.parametrize(("images", "deviation"), [(0, 0.4), (250, 0.3), (999, 0.0004)])
def test_instance_noise_falls_linearly(images, deviation):
    noise = KeyedNoise(0, 0, images, 0, CPU, DOUBLE)
    shown = images_of(64)
    added = InstanceNoise(0.4, 1_000)(shown, noise, "a") - shown
    assert added.std().item() == pytest.approx(deviation, rel=0.02)
    assert added.mean().item() == pytest.approx(0, abs=deviation / 20)


@pytest.mark.parametrize("images", [1_000, 5_000])
def test_instance_noise_ends(images):
    shown = images_of(2)
    assert InstanceNoise(0.4, 1_000)(shown, KeyedNoise(0, 0, images, 0, CPU, DOUBLE), "a") is shown


# Adaptive augmentation.


def follow(augmentation, signs, batch=10):
    strengths = []
    for sign in signs:
        augmentation.update(torch.tensor(sign, dtype=DOUBLE), batch)
        strengths.append(augmentation.strength.item())
    return strengths


def test_the_strength_rises_from_0_to_1_in_so_many_images_and_no_further():
    strengths = follow(adaptive(0.0), [1.0] * 120)
    assert strengths[:8] == pytest.approx([0, 0, 0, 0.04, 0.04, 0.04, 0.04, 0.08])
    assert strengths[95] == pytest.approx(0.96)
    assert strengths[99] == pytest.approx(1.0)
    assert strengths[-1] == 1.0


def test_the_strength_falls_below_the_target_and_not_below_0():
    strengths = follow(adaptive(0.06), [0.9, 0.4, 0.5, 0.5] * 3)
    assert strengths[3::4] == pytest.approx([0.02, 0.0, 0.0])


def test_it_is_the_mean_of_the_turns_that_counts():
    assert follow(adaptive(0.5), [0.7, 0.7, 0.7, 0.4])[-1] == pytest.approx(0.54)
    assert follow(adaptive(0.5), [0.7, 0.7, 0.7, 0.2])[-1] == pytest.approx(0.46)


def test_a_turn_that_was_not_finite_does_not_count():
    assert follow(adaptive(0.5), [1.0, math.nan, 1.0, 1.0])[-1] == 0.5
    assert follow(adaptive(0.5), [1.0, math.nan, 1.0, 1.0, 1.0])[-1] == pytest.approx(0.54)
