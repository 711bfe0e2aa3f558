"""Mode coverage, share of high quality and divergence on samples with known answers."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from ganrun.evaluation.modes import MIXTURES, label_modes, mixture, mode_kl, modes, picture
from ganrun.preparation.points import draw

KINDS = [name for name, of in MIXTURES.items() if of.centres.shape[1] == 2]


def scaled(points, kind):
    return np.array(points) / mixture(kind).scale


def divergence(counts, of):
    """Of modes hit so often, the others never, from equal shares; scipy scales both to sum to 1."""
    return entropy([*counts, *[0] * (of - len(counts))], np.ones(of))


def test_the_ring_is_that_of_its_paper():
    ring = mixture("gaussians:8")
    np.testing.assert_allclose(np.linalg.norm(ring.centres, axis=1), 2)
    np.testing.assert_allclose(
        np.linalg.norm(ring.centres - np.roll(ring.centres, 1, 0), axis=1), 4 * math.sin(math.pi / 8)
    )
    assert ring.sd == 0.02


def test_the_grid_is_that_of_its_paper():
    grid = mixture("gaussians:25")
    assert {tuple(centre) for centre in grid.centres} == {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}
    assert grid.sd == 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_loses_nothing(kind):
    of = mixture(kind)
    points = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    assert np.array_equal(points / np.float32(of.scale) * np.float32(of.scale), points)
    assert 1 <= np.abs((of.centres - of.offset) / of.scale).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_the_mixture_itself_cover_all(kind):
    """The distance from the mode is Rayleigh's: P(r <= 3 sd) = 1 - exp(-9 / 2)."""
    of = mixture(kind)
    points, _ = draw(of, 40_000, seed=1)
    found = modes(points, of)
    assert found["modes_covered"] == len(of.centres)
    assert found["high_quality_share"] == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert found["mode_kl"] == pytest.approx(0, abs=1e-9)
    assert found["mode_distance"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_collapse_to_one_mode_is_seen(kind):
    of = mixture(kind)
    found = modes(np.repeat(of.centres[:1], 100, 0) / of.scale, of)
    assert found == {
        "mode_distance": pytest.approx(1 - (1 - math.exp(-4.5)) / len(of.centres)),
        "modes_covered": 1,
        "high_quality_share": 1.0,
        "mode_kl": pytest.approx(math.log(len(of.centres))),
    }


def test_hand_made_samples_are_counted_as_the_definition_says():
    of = mixture("gaussians:25")
    edge = 3 * of.sd
    points = [
        (0, 0),
        (edge - 1e-6, 0),  # within three standard deviations
        (0, edge + 1e-6),  # not
        (0.8 * edge, 0.8 * edge),  # within on each axis, but not by distance
        (2, 2.1),
        (3.2, 4),  # nearest to (4, 4), of no quality
        (100, 100),  # so too
        (math.nan, 0),  # of nothing
    ]
    found = modes(scaled(points, "gaussians:25"), of)
    assert found["modes_covered"] == 2
    assert found["high_quality_share"] == 3 / 8
    assert found["mode_kl"] == pytest.approx(divergence([4, 1, 2], 25))
    inside = 1 - math.exp(-4.5)
    where = [2 / 8, 1 / 8, *[0] * 23, 5 / 8]  # of two modes, of the 23 others, of none
    expected = np.abs(np.array(where) - [*[inside / 25] * 25, 1 - inside]).sum() / 2
    assert found["mode_distance"] == pytest.approx(expected)


def test_generated_tensors_go_in_as_they_come():
    of = mixture("gaussians:8")
    points, _ = draw(of, 100, seed=0)
    assert modes(points[:, :, None, None], of) == modes(points, of)


def test_samples_that_are_all_nan_are_of_nothing():
    found = modes(np.full((5, 2), np.nan), mixture("gaussians:8"))
    assert (found["modes_covered"], found["high_quality_share"]) == (0, 0)
    assert found["mode_distance"] == pytest.approx(1 - math.exp(-4.5))
    assert math.isnan(found["mode_kl"])


@pytest.mark.parametrize("counts", [[5, 5, 5], [9, 1, 0], [0, 7, 0], [1, 2, 3]])
def test_the_divergence_is_scipys(counts):
    assert mode_kl(np.array(counts)) == pytest.approx(divergence(counts, 3))


def test_labels_are_counted():
    found = label_modes(np.bincount([0, 0, 3, 999], minlength=1000))
    assert found["modes_covered"] == 3
    assert found["mode_kl"] == pytest.approx(divergence([2, 1, 1], 1000))
    assert label_modes(np.ones(1000, int)) == {"modes_covered": 1000, "mode_kl": pytest.approx(0)}


def colours(png):
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert pixels.shape == (700, 700, 3)
    plot = pixels[80:]  # below title and legend
    blue, orange = (((plot[..., 2] - plot[..., 0]) * sign > 60).sum() for sign in (1, -1))
    return blue, orange


def test_the_picture_tells_samples_in_modes_from_others():
    of = mixture("gaussians:25")
    none, every = colours(picture(of.centres / of.scale + 0.25, of)), colours(picture(of.centres / of.scale, of))
    assert none[0] == every[1] == 0
    assert none[1] > 0 < every[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_stands_odd_samples(kind):
    of = mixture(kind)
    odd = np.array([[np.nan, 0], [np.inf, 0], [1e9, 1e9], [0, 0]])
    assert picture(odd, of).startswith(b"\x89PNG")
