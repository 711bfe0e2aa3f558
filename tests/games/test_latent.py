"""Latent noise has the distribution of its name."""

import pytest
import torch
from scipy import stats

from ganrun.games.latent import Latent
from ganrun.rng import KeyedNoise

DRAW = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float64)
DISTRIBUTIONS = {
    "normal": stats.norm(),
    "uniform": stats.uniform(-1, 2),
    "truncated": stats.truncnorm(-2, 2),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_noise_has_the_distribution_that_scipy_has(kind):
    z = Latent(5, kind).draw(DRAW, 4_000, "z")
    assert z.shape == (4_000, 5)
    assert stats.kstest(z.flatten().numpy(), DISTRIBUTIONS[kind].cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [3, 100])
def test_a_hypersphere_has_the_radius_of_normal_noise_and_no_direction(size):
    z = Latent(size, "hypersphere").draw(DRAW, 4_000, "z")
    torch.testing.assert_close(z.norm(dim=1), torch.full((4_000,), size**0.5, dtype=torch.float64))
    assert z.mean(0).abs().max().item() < 0.06
    torch.testing.assert_close(z.T @ z / 4_000, torch.eye(size, dtype=torch.float64), rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", [*DISTRIBUTIONS, "hypersphere"])
def test_noise_is_that_of_its_purpose(kind):
    latent = Latent(8, kind)
    first, again, other = (latent.draw(DRAW, 4, name) for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.isfinite(Latent(8, kind).draw(KeyedNoise(0, 0, 0, 0, DRAW.device, torch.float32), 100_000, "z")).all()
