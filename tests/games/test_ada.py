"""ADA's transforms: each against a closed form, scipy or Pillow, and their distributions against the paper's."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from ganrun.games.ada_transforms import GROUPS, transform_sampler
from ganrun.games.adaptive_augmentation import AdaptiveAugmentation, recolour
from ganrun.games.resampling import BAND_POWER, SYM2, SYM6, amplify, octaves, warp
from ganrun.rng import KeyedNoise

CPU, DOUBLE = torch.device("cpu"), torch.float64
DRAW = KeyedNoise(0, 0, 0, 0, CPU, DOUBLE)
BGC, ALL = ("blit", "geometric", "color"), ("blit", "geometric", "color", "filter", "noise", "cutout")
MANY = 20_000


def images_of(count, channels=3, size=16):
    stream = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, size, size, dtype=DOUBLE, generator=stream) * 2 - 1


def augmentation(strength, groups=ALL, dtype=DOUBLE):
    made = AdaptiveAugmentation(groups, 0.6, 1_000).to(dtype)
    made.strength.fill_(strength)
    return made


def augmented(images, strength, groups=ALL, noise=DRAW, name="real"):
    return augmentation(strength, groups, images.dtype)(images, {}, noise, "discriminator", name)[0]


def drawn(strength, groups=ALL, count=MANY, channels=3, size=16):
    return transform_sampler(groups, channels, size, CPU, DOUBLE).draw(
        torch.tensor(strength, dtype=DOUBLE), count, DRAW, "a"
    )


def values_of(groups, count, channels=3, size=16):
    """The random numbers themselves by name, at p = 1."""
    made = transform_sampler(groups, channels, size, CPU, DOUBLE)
    chances, uniforms = len(made.transforms), len(made.uniforms)
    flat = DRAW.uniform(count, chances + uniforms, name="a/uniform")[:, chances:]
    bell = DRAW.normal(count, len(made.parameters) - uniforms, name="a/normal")
    return dict(zip(made.parameters, torch.cat([flat, bell], 1).T.numpy(), strict=True))


# All of them.


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("groups", [*((name,) for name in GROUPS), BGC, ALL])
def test_at_p_0_images_are_as_they_were_to_the_bit_and_at_p_1_none_is(groups, channels, dtype):
    noise, images = KeyedNoise(0, 0, 0, 0, CPU, dtype), images_of(30, channels).to(dtype)
    assert torch.equal(augmented(images, 0.0, groups, noise), images)
    changed = augmented(images, 1.0, groups, noise)
    assert changed.dtype == dtype
    assert changed.isfinite().all()
    same = (changed == images).flatten(1).all(1).double().mean()
    assert same == 0 or (groups == ("blit",) and same < 0.1)  # All blits of an image may be those that do nothing.


def test_an_image_without_any_transform_stays_as_it_is_to_the_bit():
    images = images_of(200)
    changed = augmented(images, 0.05, BGC)
    chosen = transform_sampler(BGC, 3, 16, CPU, DOUBLE)
    applied = chosen.draw(torch.tensor(0.05, dtype=DOUBLE), 200, DRAW, "discriminator/real/ada").applied.any(1)
    assert 0.3 < applied.double().mean() < 0.6
    assert torch.equal(changed[~applied], images[~applied])


def test_each_call_has_its_own_randomness_and_the_same_one_again():
    images = images_of(8)
    first, again, other = (augmented(images, 0.8, name=name) for name in ("real", "real", "fake"))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).flatten(1).all(1).any()


@pytest.mark.parametrize(("groups", "channels"), [(BGC, 3), (ALL, 1), (ALL, 3)])
def test_it_can_be_differentiated_twice(groups, channels):
    images = images_of(2, channels, 6).requires_grad_()

    def squared(x):
        return augmented(x, 0.9, groups).square()

    assert torch.autograd.gradcheck(squared, images, nondet_tol=1e-12, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, images, nondet_tol=1e-12, fast_mode=True)


def test_in_bf16_places_and_colours_keep_their_digits():
    images, noise = images_of(4).float(), KeyedNoise(0, 0, 0, 0, CPU, torch.float32)
    exact = augmented(images, 1.0, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augmented(images, 1.0, noise=noise), exact)


# How often, and how much.


@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_each_transform_comes_with_the_probability_of_the_strength(strength):
    made, chosen = transform_sampler(ALL, 3, 16, CPU, DOUBLE), drawn(strength).applied.double()
    shares = dict(zip(made.transforms, chosen.mean(0).tolist(), strict=True))
    for name, share in shares.items():
        expected = 1 - math.sqrt(1 - strength) if name in ("rotation_before", "rotation_after") else strength
        assert share == pytest.approx(expected, abs=0.015), name
    columns = [made.transforms.index(name) for name in ("rotation_before", "rotation_after")]
    assert chosen[:, columns].any(1).double().mean().item() == pytest.approx(strength, abs=0.015)
    together = torch.corrcoef(chosen.T) if strength < 1 else torch.eye(len(shares))
    assert (together - torch.eye(len(shares))).abs().max() < 0.04  # Independent of each other.


def is_drawn_from(values, law):
    return stats.kstest(np.asarray(values), law).pvalue > 1e-3


def test_scales_stretches_rotations_and_shifts_are_distributed_as_in_the_paper():
    geometry = drawn(1.0, ("geometric",), 4_000)
    linear, deviation = geometry.linear, 0.2 * math.log(2)
    assert is_drawn_from(torch.linalg.det(linear).log() / 2, stats.norm(0, deviation).cdf)
    ratio = torch.linalg.svdvals(linear)
    assert is_drawn_from((ratio[:, 0] / ratio[:, 1]).log() / 2, stats.halfnorm(0, deviation).cdf)
    left, _, right = torch.linalg.svd(linear)
    for turned in (left @ right, right):  # Both rotations together, and the second up to half turns.
        angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]) % math.pi
        assert is_drawn_from(angle, stats.uniform(0, math.pi).cdf)
    moved = torch.linalg.solve(linear, geometry.offset)
    for axis in (0, 1):
        assert is_drawn_from(moved[:, axis] / 2, stats.norm(0, 0.125).cdf)  # In image widths.


def test_blits_are_the_eight_symmetries_of_a_square_and_shifts_by_whole_pixels():
    blits = drawn(1.0, ("blit",), 8_000, size=32)
    torch.testing.assert_close(blits.linear, blits.linear.round(), rtol=0, atol=1e-12)
    kinds, counts = blits.linear.round().flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert stats.chisquare(counts).pvalue > 1e-3
    pixels = blits.offset * 16
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-12)
    for axis in (0, 1):  # round(t) for t ~ U(-4, 4): the ends half as often.
        _, counts = pixels[:, axis].round().unique(return_counts=True)
        assert stats.chisquare(counts, 8_000 * np.array([0.5, *[1] * 7, 0.5]) / 8).pvalue > 1e-3


def matrix(*rows):
    return np.array(rows, dtype=float)


def turned(angle):
    return matrix([math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1])


def test_the_map_of_coordinates_is_the_product_of_its_parts():
    found, v = drawn(1.0, count=50), values_of(ALL, 50)
    for i in range(50):
        scale, stretch = (math.exp(0.2 * math.log(2) * v[name][i]) for name in ("scale", "stretch"))
        mirror, quarter = math.floor(2 * v["mirror"][i]), math.floor(4 * v["quarter_turns"][i])
        whole = [2 / 16 * np.round((v[name][i] - 0.5) * 4) for name in ("integer_x", "integer_y")]
        expected = (
            matrix([1, 0, whole[0]], [0, 1, whole[1]], [0, 0, 1])
            @ np.diag([scale, scale, 1])
            @ turned(quarter * math.pi / 2 + 2 * math.pi * (v["rotation_before"][i] - 0.5))
            @ np.diag([stretch, 1 / stretch, 1])
            @ turned(2 * math.pi * (v["rotation_after"][i] - 0.5))
            @ np.diag([1 - 2 * mirror, 1, 1])
            @ matrix([1, 0, 0.25 * v["fractional_x"][i]], [0, 1, 0.25 * v["fractional_y"][i]], [0, 0, 1])
        )
        np.testing.assert_allclose(found.linear[i], expected[:2, :2], atol=1e-12)
        np.testing.assert_allclose(found.offset[i], expected[:2, 2], atol=1e-12)


def test_colours_change_by_the_product_of_the_papers_matrices():
    """Brightness, contrast, luma flip, rotation of hues about the grey axis, saturation, in this order."""
    found, v, axis = drawn(1.0, count=50), values_of(ALL, 50), np.full((3, 1), 1 / math.sqrt(3))
    grey, cross = axis @ axis.T, matrix([0, -1, 1], [1, 0, -1], [-1, 1, 0]) / math.sqrt(3)
    for i in range(50):
        hue = 2 * math.pi * (v["hue"][i] - 0.5)
        rotation = grey + math.cos(hue) * (np.eye(3) - grey) + math.sin(hue) * cross
        saturation = grey + 2 ** v["saturation"][i] * (np.eye(3) - grey)
        flip = np.eye(3) - 2 * grey * math.floor(2 * v["luma"][i])
        expected = saturation @ rotation @ flip * 2 ** (0.5 * v["contrast"][i])
        np.testing.assert_allclose(found.colour[i], expected, atol=1e-12)
        np.testing.assert_allclose(
            expected.sum(1) * 0.2 * v["brightness"][i], np.full(3, found.colour_offset[i]), atol=1e-12
        )


# Colours.


def test_a_grey_image_changes_like_a_grey_colour():
    shades = images_of(20, 1)
    assert list(transform_sampler(("color",), 1, 16, CPU, DOUBLE).parameters) == list(
        transform_sampler(("color",), 3, 16, CPU, DOUBLE).parameters
    )
    of_grey, of_colour = (drawn(0.7, ("color",), 20, channels) for channels in (1, 3))
    torch.testing.assert_close(recolour(shades, of_grey), recolour(shades.expand(-1, 3, -1, -1), of_colour)[:, :1])


# Places.


def smooth(size=32, channels=3):
    """Blurred noise, as a photograph has little in its highest frequencies."""
    image = np.random.default_rng(0).normal(size=(channels, size, size))
    image = ndimage.gaussian_filter(image, (0, 2, 2), mode="reflect")
    return image / np.abs(image).max()


def warped(image, linear, offset=(0.0, 0.0)):
    image = torch.as_tensor(image)[None]
    return warp(image, torch.tensor(linear, dtype=DOUBLE)[None], torch.tensor(offset, dtype=DOUBLE)[None])[0].numpy()


@pytest.mark.parametrize(
    ("linear", "method"),
    [
        ([[-1, 0], [0, 1]], Image.Transpose.FLIP_LEFT_RIGHT),
        ([[1, 0], [0, -1]], Image.Transpose.FLIP_TOP_BOTTOM),
        ([[0, -1], [1, 0]], Image.Transpose.ROTATE_90),
        ([[-1, 0], [0, -1]], Image.Transpose.ROTATE_180),
        ([[0, 1], [-1, 0]], Image.Transpose.ROTATE_270),
        ([[0, 1], [1, 0]], Image.Transpose.TRANSPOSE),
    ],
)
def test_mirrored_and_turned_images_are_pillows(linear, method):
    image = smooth(channels=1)
    expected = np.asarray(Image.fromarray(image[0].astype(np.float32)).transpose(method))
    np.testing.assert_allclose(warped(image, np.array(linear, float))[0], expected, atol=0.02)


@pytest.mark.parametrize(("angle", "scale", "shift"), [(0.5, 1.0, (0, 0)), (2.1, 0.8, (3.3, -1.2)), (-1, 1.3, (0, 7))])
def test_turned_scaled_and_shifted_images_are_scipys_also_beyond_the_border(angle, scale, shift):
    image = smooth()
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    swapped, centre = linear[::-1, ::-1], np.full(2, 15.5)  # scipy's coordinates are (row, column) in pixels.
    offset = centre + np.array(shift[::-1]) - swapped @ centre
    expected = [ndimage.affine_transform(channel, swapped, offset, order=5, mode="reflect") for channel in image]
    found = warped(image, linear, [2 / 32 * each for each in shift])
    assert np.abs(found - expected).max() < 0.05
    assert np.abs(found - expected).mean() < 0.006


def test_frequencies_that_a_smaller_image_cannot_have_are_gone():
    """Stripes of 2.2 pixels, shown at half their size, would alias to stripes of 11 pixels."""
    stripes = np.cos(2 * math.pi / 2.2 * np.arange(64))[None, None] * np.ones((1, 64, 1))
    small, plain = warped(stripes, 2 * np.eye(2))[0], stripes[0, ::2, ::2]
    assert np.abs(plain).max() > 0.95
    assert np.abs(small[20:-20, 20:-20]).max() < 0.1


def test_the_wavelets_are_orthogonal_with_six_and_two_vanishing_moments():
    for taps, moments in ((SYM6, 6), (SYM2, 2)):
        h, k = np.array(taps), np.arange(len(taps))
        for shift in range(0, len(h), 2):
            assert h[shift:] @ h[: len(h) - shift] == pytest.approx(float(shift == 0), abs=1e-11)
        for power in range(moments):
            assert (-1.0) ** k @ (h * (k - k.mean()) ** power) == pytest.approx(0, abs=1e-8)


# Frequencies, noise, cutout.


@pytest.mark.parametrize("wave", [0, 1, 5, 11, 15])
def test_each_octave_of_a_wave_is_amplified_by_its_gain(wave):
    """cos(pi k (n + 1/2) / S) goes on smoothly beyond the border, so a symmetric filter only multiplies it."""
    angle, logs = math.pi * wave / 16, torch.tensor([[0.3, -0.5, 0.7, 0.2]], dtype=DOUBLE)
    low = [abs(sum(h * np.exp(-1j * k * step * angle) for k, h in enumerate(SYM2))) ** 2 / 2 for step in (1, 2, 4)]
    shares = [low[0] * low[1] * low[2], low[0] * low[1] * (1 - low[2]), low[0] * (1 - low[1]), 1 - low[0]]
    gains = logs[0].exp()
    for log, power in zip(logs[0], BAND_POWER, strict=True):  # Each gain keeps the expected power.
        gains = gains / math.sqrt(1 - power + power * math.exp(2 * log))
    image = torch.cos(angle * (torch.arange(16, dtype=DOUBLE) + 0.5)).expand(1, 2, 16, 16)
    expected = image * (gains @ torch.tensor(shares)) * gains[0]  # Vertically it is constant: the lowest octave.
    torch.testing.assert_close(amplify(image, logs), expected)


def test_octaves_are_scipys_convolutions_and_their_sum_is_the_identity():
    bank = octaves(32, CPU, DOUBLE).matrices
    torch.testing.assert_close(bank.sum(0), torch.eye(32, dtype=DOUBLE), rtol=0, atol=1e-12)
    impulse, row = np.eye(64)[32], smooth()[0, 0]
    for octave in bank:
        taps = octaves(64, CPU, DOUBLE).matrices[[torch.equal(octave, each) for each in bank].index(True)] @ impulse
        expected = ndimage.convolve1d(row, taps[32 - 21 : 32 + 22].numpy(), mode="reflect")
        np.testing.assert_allclose(octave @ row, expected, atol=1e-12)


def test_gains_are_lognormal_and_noise_is_half_normal_noise():
    bands = drawn(1.0, ("filter",), 4_000).bands
    assert all(is_drawn_from(band, stats.norm(0, math.log(2)).cdf) for band in bands.T)
    images = torch.zeros(2_000, 1, 16, 16, dtype=DOUBLE)
    deviations = augmented(images, 1.0, ("noise",)).flatten(1).std(1)
    assert is_drawn_from(deviations, stats.halfnorm(0, 0.1).cdf)


def test_a_cutout_is_a_square_of_half_the_size_that_lies_anywhere():
    images = torch.ones(4_000, 1, 16, 16, dtype=DOUBLE)
    kept = augmented(images, 1.0, ("cutout",))
    gone = kept == 0
    assert torch.equal(kept, (~gone).double())
    for axis in (2, 3):
        lines = gone.any(axis).squeeze(1)
        lengths = lines.sum(1)
        assert (lengths.min(), lengths.max()) == (4, 8)  # Those at the border are clipped.
        first, last = lines.double().argmax(1), 15 - lines.flip(1).double().argmax(1)
        assert torch.equal(last - first + 1, lengths)
        assert stats.chisquare(torch.bincount(first[lengths == 8], minlength=9)).pvalue > 1e-3
    some = augmented(images, 0.3, ("cutout",)).flatten(1).amin(1) == 0
    assert some.double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_smaller_picture_is_moved_by_as_much_of_its_size():
    """As the low resolution that an image is made of."""
    image = torch.as_tensor(smooth(32))[None]
    given = {"low": torch.nn.functional.avg_pool2d(image, 2)}
    found, pictures = augmentation(1.0, ("blit", "geometric", "cutout"))(image, given, DRAW, "discriminator", "real")
    assert (torch.nn.functional.avg_pool2d(found, 2) - pictures["low"]).abs().mean() < 0.03
