"""Games that can be solved by hand move as theory says: eigenvalues of the linearised round, radius, order of turns."""

import itertools

import numpy as np
import pytest

from tests.games.known import (
    HALF,
    RATE,
    alternating,
    dirac,
    eigenvalues,
    fitted,
    quadratic,
    radius,
    simultaneous,
    with_momentum,
)

TOLERANCE = 1e-3
LOSSES = {
    # (slope of D's loss in psi theta, of the generator's) at the equilibrium.
    "minimax": (HALF, HALF),
    "non_saturating": (HALF, HALF),
    "relativistic": (HALF, HALF),
    "wasserstein": (1, 1),
    "hinge": (1, 1),
    "least_squares": (0, 1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_round_of_the_dirac_gan_is_the_linear_update_of_its_loss(loss, tmp_path):
    pull, push = LOSSES[loss]
    states = dirac(tmp_path, {"loss": loss}, rounds=20)
    expected = alternating(pull, push)
    for before, after in itertools.pairwise(states):
        np.testing.assert_allclose(after, expected @ before, atol=TOLERANCE * 1e-3)
    if loss != "least_squares":  # It does not turn, and one direction is not seen.
        np.testing.assert_allclose(eigenvalues(fitted(states)), eigenvalues(expected), atol=TOLERANCE)
        assert radius(fitted(states)) == pytest.approx(1, abs=TOLERANCE)  # It circles.


@pytest.mark.parametrize("turns", [1, 2, 5])
@pytest.mark.parametrize("penalty", ["r1", "r2"])
def test_penalties_contract_the_dirac_gan_at_the_rate_of_theory(penalty, turns, tmp_path):
    found = fitted(dirac(tmp_path, {"loss": "minimax", "penalties": {penalty: 0.5}}, turns=turns, rounds=20))
    expected = alternating(HALF, HALF, damping=0.5, turns=turns)
    np.testing.assert_allclose(eigenvalues(found), eigenvalues(expected), atol=TOLERANCE)
    if turns == 1:
        assert radius(found) == pytest.approx((1 - RATE * 0.5) ** 0.5, abs=TOLERANCE)
    assert radius(found) < 1


@pytest.mark.parametrize("turns", [2, 5])
def test_more_turns_of_the_discriminator_alone_do_not_make_it_converge(turns, tmp_path):
    found = fitted(dirac(tmp_path, {"loss": "minimax"}, turns=turns, rounds=20))
    np.testing.assert_allclose(eigenvalues(found), eigenvalues(alternating(HALF, HALF, turns=turns)), atol=TOLERANCE)
    assert radius(found) == pytest.approx(1, abs=TOLERANCE)


def test_momentum_drives_it_away_and_so_would_simultaneous_turns(tmp_path):
    states = dirac(tmp_path, {"loss": "minimax"}, momentum=0.5, rounds=80)
    expected = radius(with_momentum(HALF, HALF, 0.5))
    assert expected > 1 + 5 * TOLERANCE
    # Two states in a row hold the velocities too.
    lagged = np.hstack([states[1:], states[:-1]])
    assert radius(fitted(lagged)) == pytest.approx(expected, abs=TOLERANCE)
    assert radius(simultaneous(HALF, HALF)) == pytest.approx((1 + (RATE * HALF) ** 2) ** 0.5)
    assert radius(simultaneous(HALF, HALF)) > 1


def test_far_from_the_equilibrium_the_bilinear_game_still_circles(tmp_path):
    """Alternating turns keep theta^2 + psi^2 - h theta psi, in every round."""
    theta, psi = dirac(tmp_path, {"loss": "wasserstein"}, start=1.0, rounds=200).T
    kept = theta**2 + psi**2 - RATE * theta * psi
    np.testing.assert_allclose(kept, kept[0], rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("objective", "slope", "damping"),
    [
        ({"loss": "wasserstein"}, 1, (0, 0)),
        # R1 is gamma E (w x + v)^2 / 2.
        ({"loss": "wasserstein", "penalties": {"r1": 0.5}}, 1, (0.5, 0.5)),
        # D's loss is convex where real and generated points overlap, with second derivatives E x^4 / 8 and E x^2 / 2.
        ({"loss": "minimax"}, HALF, (3 / 8, 1 / 2)),
    ],
    ids=["wasserstein", "r1", "minimax"],
)
def test_the_linear_quadratic_game_converges_only_by_a_penalty_or_a_convex_loss(objective, slope, damping, tmp_path):
    states = quadratic(tmp_path, objective)
    for number, columns in enumerate(([0, 2], [1, 3])):  # a with w, b with v.
        expected = alternating(slope, slope, damping=damping[number])
        np.testing.assert_allclose(eigenvalues(fitted(states[:, columns])), eigenvalues(expected), atol=TOLERANCE)
        assert (radius(expected) < 1 - TOLERANCE) == bool(damping[number])
