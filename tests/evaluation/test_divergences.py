"""Divergences against closed forms, of densities that are stated and of points alone."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from ganrun.config.registry import SCORES
from ganrun.config.score_names import DIVERGENCES
from ganrun.errors import UserError
from ganrun.evaluation.divergences import log_mixture
from ganrun.evaluation.score_pass import ScorePass
from ganrun.models.mixture import Mixture
from ganrun.preparation.points import make_points
from tests.evaluation.games import FromMixture, game_of, ring_values, subject_of
from tests.games.known import values_of
from tests.ranks import Ranks

RING = "gaussians:8"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Small data sets by mixture: of the data only its source matters."""
    found = {}
    for kind in (RING, "points:gaussian"):
        found[kind] = tmp_path_factory.mktemp("points") / "data"
        make_points(kind, str(found[kind]), 40, 0)
    return found


def divergences(subject):
    found = {}
    for name in DIVERGENCES:
        score = SCORES[name]()
        assert score.unavailable(subject) is None
        found |= score.result(score.start(subject), None)
    return found


def expected(mean, deviation):
    """KL, reverse KL and JS between N(0, 1) and N(mean, deviation^2)."""

    def kl_of(m, s):  # Of N(0, 1) from N(m, s^2).
        return math.log(s) + (1 + m**2) / (2 * s**2) - 0.5

    def half(x, one, other):
        return one(x) * (math.log(one(x)) - math.log((one(x) + other(x)) / 2)) / 2

    p, q = norm(0, 1).pdf, norm(mean, deviation).pdf
    js = quad(lambda x: half(x, p, q) + half(x, q, p), -8, 8)[0]
    return {"kl": kl_of(mean, deviation), "reverse_kl": kl_of(mean / deviation, 1 / deviation), "jensen_shannon": js}


@pytest.mark.parametrize("kind", ["generator", "density"])
def test_stated_densities_diverge_by_the_closed_form_within_the_stated_error(kind, shards, tmp_path):
    mean, deviation = 0.4, 1.5
    if kind == "generator":
        game = game_of(values_of("linear_quadratic", tmp_path, {}))
        with torch.no_grad():
            game.networks["generator"].a.fill_(deviation)
            game.networks["generator"].b.fill_(mean)
    else:
        values = values_of("mixture", tmp_path, {"game": "likelihood"})
        game = game_of(
            values | {"model": {"name": "mixture", "components": 1}, "optimizer": {"density": {"learning_rate": 1e-3}}}
        )
        density = game.networks["density"]
        assert isinstance(density, Mixture)
        with torch.no_grad():
            density.floor.zero_()
            density.means.fill_(mean)
            density.log_deviations.fill_(math.log(deviation))
    found = divergences(subject_of(game, shards["points:gaussian"], samples=20_000, share=0.0))
    for name, value in expected(mean, deviation).items():
        error = found[f"{name}_deviation"]
        assert abs(found[name] - value) < 4 * error
        assert 0 < error < 0.01


def test_points_of_the_mixture_itself_diverge_little_and_a_missing_mode_as_far_as_its_share(shards):
    game = game_of(ring_values(shards[RING]), train__precision="float64")

    def of(modes):
        networks = game.networks | {"generator": FromMixture(RING, modes)}
        return divergences(subject_of(game, shards[RING], samples=6_000, networks=networks, share=0.0))

    whole, cut = of(list(range(8))), of(list(range(7)))
    assert all(0 <= whole[name] < 0.05 for name in DIVERGENCES)
    # Modes far apart: the divergence is that of their shares, 1/8 each against 1/7 and 0.
    p, q = np.full(8, 1 / 8), np.append(np.full(7, 1 / 7), 1e-300)
    m = (p + q) / 2
    js = ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2
    assert cut["jensen_shannon"] == pytest.approx(js, abs=0.015)
    assert cut["reverse_kl"] == pytest.approx(math.log(8 / 7), abs=0.04)
    assert cut["kl"] > 100  # Infinite, but for the tails of the nearest points.
    # JS is at most log 2, and reached by points that are nowhere near.
    networks = game.networks | {"generator": FromMixture(RING)}
    with torch.no_grad():
        networks["generator"].centres += 10
    assert divergences(subject_of(game, shards[RING], networks=networks, share=0.0))["jensen_shannon"] == pytest.approx(
        math.log(2)
    )


def test_a_divergence_is_the_same_on_any_number_of_ranks(shards):
    game = game_of(ring_values(shards[RING]))
    for name in DIVERGENCES:
        score = SCORES[name]()
        alone = score.start(subject_of(game, shards[RING], samples=300, share=0.0))
        parts = [
            score.start(subject_of(game, shards[RING], samples=300, share=0.0, group=Ranks(rank, 3)))
            for rank in range(3)
        ]
        assert torch.equal(sum(part["points"] for part in parts), alone["points"])


def test_the_density_of_a_mixture_is_that_of_scipy():
    x, centres = torch.randn(1_100, 2, dtype=torch.float64), torch.tensor([[0.0, 1.0], [2.0, -1.0]]).double()
    found = log_mixture(x, centres, 0.7)
    each = [norm(centre.numpy(), 0.7).pdf(x.numpy()).prod(1) for centre in centres]
    np.testing.assert_allclose(found.numpy(), np.log(np.mean(each, axis=0)), atol=1e-9)


def test_data_without_a_density_is_refused_in_a_line(values, data_folder, tmp_path):
    images = subject_of(game_of(values), data_folder, kind="image", samples=30, share=0.0)
    point = subject_of(game_of(values_of("dirac", tmp_path, {})), "package:dirac", share=0.0)
    for subject, reason in (
        (images, "it needs the density of the data, which points"),
        (point, "the data is a single"),
    ):
        with pytest.raises(UserError, match=f"metrics: kl cannot be computed: {reason}"):
            ScorePass({"kl": SCORES["kl"]()}, subject)
