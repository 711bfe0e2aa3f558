"""VAE and mixture of factor analysers: bounds, closed forms, EM."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ganrun.errors import UserError
from ganrun.models import logistic_mixture
from ganrun.models.density import LEVELS, dequantised
from ganrun.models.vae import divergence
from tests.densities.densities import build, images_of, noise_of, nothing, passes_over


def test_the_divergence_of_normals_is_that_of_torch():
    mean, log_variance = torch.randn(2, 4, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def mean_bound(vae, image, samples, draws=300):
    with torch.no_grad():
        found = torch.cat([vae.log_prob(image, noise_of(slot), samples) for slot in range(draws)])
    return float(found.mean()), float(found.std()) / math.sqrt(draws)


def test_more_importance_samples_make_the_bound_tighter_and_none_exceeds_the_likelihood():
    """The likelihood by quadrature over a latent of one number."""
    vae = build("vae", latent_size=1)
    image = images_of(1)
    with torch.no_grad():
        z = torch.linspace(-8, 8, 1_001, dtype=torch.float64)
        nats = logistic_mixture.log_prob(image.expand(1_001, -1, -1, -1), *vae.decode(z[:, None], noise_of()))
        joint = nats.flatten(1).sum(1) - 0.5 * z.square() - 0.5 * math.log(2 * math.pi)
        exact = float(torch.logsumexp(joint, 0)) + math.log(16 / 1_000)
    found = {samples: mean_bound(vae, image, samples) for samples in (1, 4, 64)}
    assert found[1][0] < found[4][0] + 3 * found[1][1]
    assert found[4][0] < found[64][0] + 3 * found[4][1]
    for bound, error in found.values():
        assert bound < exact + 4 * error + 1e-6
    assert found[64][0] == pytest.approx(exact, abs=0.2)


def test_the_bound_with_one_sample_has_the_mean_of_the_importance_weight():
    """E log w is the bound with the divergence in closed form, which has less variance."""
    vae, image = build("vae"), images_of(1)
    closed, error = mean_bound(vae, image, 1)
    with torch.no_grad():
        twice = [vae.log_prob(image.repeat(1, 1, 1, 1), noise_of(slot), 2) for slot in range(300)]
    assert float(torch.cat(twice).mean()) >= closed - 4 * error


def test_a_vae_samples_images_of_256_levels():
    vae = build("vae", channels=3)
    levels = (vae.sample(5, noise_of()) + 1) * 127.5
    assert levels.shape == (5, 3, 8, 8)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)


def of_factors(**settings):
    return build("mixture_of_factor_analysers", size=4, **settings)


def test_the_density_of_factor_analysers_is_that_of_scipy():
    density, image = of_factors(), images_of(3, size=4)
    y = dequantised(image, noise_of()).flatten(1).numpy()
    weights = density.logits.softmax(0).tolist()
    expected = np.zeros(3)
    for k in range(2):
        loadings = density.loadings[k].detach().numpy()
        covariance = loadings @ loadings.T + np.diag(density.variances[k].detach().numpy())
        expected += weights[k] * stats.multivariate_normal.pdf(y, density.means[k].detach().numpy(), covariance)
    found = density.log_prob(image, noise_of()).detach().numpy() + 16 * math.log(LEVELS)
    np.testing.assert_allclose(found, np.log(expected), atol=1e-9)


def test_samples_of_factor_analysers_have_their_mean_and_covariance():
    density = of_factors(components=1)
    with torch.no_grad():
        density.means.fill_(0.5)
        density.log_deviations.fill_(-3.5)
        density.loadings *= 0.2
        y = (((density.sample(20_000, noise_of()) + 1) * 127.5 + 0.5) / LEVELS).flatten(1)
        expected = density.loadings[0] @ density.loadings[0].T + torch.diag(density.variances[0])
    torch.testing.assert_close(y.mean(0), torch.full((16,), 0.5, dtype=torch.float64), rtol=0, atol=3e-3)
    torch.testing.assert_close(torch.cov(y.T), expected, rtol=0.1, atol=4e-4)


def test_the_likelihood_of_factor_analysers_never_falls():
    density, images = of_factors(components=3), images_of(200, size=4)
    density.initialise(passes_over(images), nothing)
    nats = density.fit_em(passes_over(images), nothing, 20)
    assert all(after >= before - 1e-8 for before, after in itertools.pairwise(nats))
    assert nats[-1] > nats[0] + 1


def test_em_of_one_factor_analyser_reaches_the_covariance_of_the_data():
    """With as many factors as numbers it is one full Gaussian, whose likelihood is known."""
    density, images = of_factors(components=1, factors=16), images_of(400, size=4)
    y = torch.cat([dequantised(*each).flatten(1) for each in passes_over(images)()])
    density.initialise(passes_over(images), nothing, 200)
    normal = torch.distributions.MultivariateNormal(y.mean(0), torch.cov(y.T, correction=0))
    best = float(normal.log_prob(y).mean())
    found = float(density.fit_em(passes_over(images), nothing, 1)[0])
    assert best - 0.5 < found < best + 1e-6


def test_more_components_than_samples_are_refused():
    with pytest.raises(UserError, match=r"model\.components: 9, but there are only 5 training samples"):
        of_factors(components=9).initialise(passes_over(images_of(5, size=4)), nothing)
