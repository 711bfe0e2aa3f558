"""Mixtures: densities, samples, gradients and EM against closed forms and scikit-learn."""

import itertools
import logging

import numpy as np
import pytest
import torch
from scipy import stats

from ganrun.errors import UserError
from ganrun.models.density import LEVELS
from ganrun.models.mixture import LEVEL_DEVIATION, Mixture
from ganrun.models.mixture_of_factor_analysers import FactorAnalysers
from tests.densities.densities import build, images_of, noise_of, nothing, passes_over


def points_of(count, seed=0):
    """Points of three overlapping groups in two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[-1.0, 0.0], [1.0, 1.0], [0.5, -1.5]], dtype=torch.float64)
    group = torch.randint(0, 3, (count,), generator=generator)
    drawn = torch.randn(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([0.4, 0.7])
    return (centres[group] + drawn)[:, :, None, None]


def of_points(components, numbers=2):
    torch.manual_seed(0)
    return Mixture((numbers, 1, 1), components).double()


def test_the_density_of_a_number_is_that_of_scipy_and_integrates_to_1():
    mixture = of_points(2, 1)
    with torch.no_grad():
        mixture.means.copy_(torch.tensor([[[-0.5], [1.0]]]))
        mixture.logits.copy_(torch.tensor([[0.0, 1.0]]))
    x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    found = mixture.log_prob(x[:, None, None, None], noise_of()).exp()
    weights, deviations = mixture.logits[0].softmax(0), mixture.variances[0, :, 0].sqrt()
    expected = sum(
        float(weights[k]) * stats.norm.pdf(x.numpy(), float(mixture.means[0, k, 0]), float(deviations[k]))
        for k in range(2)
    )
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    assert float(torch.trapezoid(found, x)) == pytest.approx(1, abs=1e-9)


def test_samples_follow_the_density():
    mixture = of_points(2, 1)
    with torch.no_grad():
        mixture.means.copy_(torch.tensor([[[-1.0], [1.0]]]))
        mixture.logits.copy_(torch.tensor([[0.0, 1.0]]))
        drawn = mixture.sample(20_000, noise_of()).flatten().numpy()
    weights, deviations = mixture.logits[0].softmax(0).tolist(), mixture.variances[0, :, 0].sqrt().tolist()

    def cdf(x):
        return sum(weights[k] * stats.norm.cdf(x, [-1, 1][k], deviations[k]) for k in range(2))

    assert stats.kstest(drawn, cdf).pvalue > 1e-3


def test_the_gradient_is_the_closed_form():
    """d log p / d m_k = r_k (x - m_k) / s_k^2, with r_k the responsibility."""
    mixture, x = of_points(3), points_of(50)
    mixture.log_prob(x, noise_of()).sum().backward()
    with torch.no_grad():
        values = x.view(50, 1, 1, 2)
        shares = torch.softmax(mixture._joint(values), dim=2)[..., None]
        expected = (shares * (values - mixture.means) / mixture.variances).sum(0)
        weights = (shares[..., 0] - mixture.logits.softmax(1)).sum(0)
    torch.testing.assert_close(mixture.means.grad, expected)
    torch.testing.assert_close(mixture.logits.grad, weights)


def test_em_from_the_same_start_has_the_likelihood_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.mixture", reason="scikit-learn is in the extra `test`")
    mixture, x = of_points(3), points_of(1_000)
    mixture._spread(passes_over(x), nothing)
    start = {
        "weights_init": mixture.logits[0].softmax(0).detach().numpy(),
        "means_init": mixture.means[0].detach().numpy().copy(),
        "precisions_init": 1 / mixture.variances[0].detach().numpy(),
    }
    theirs = sklearn.GaussianMixture(3, covariance_type="diag", tol=0, reg_covar=0, max_iter=30, **start)
    theirs.fit(x.flatten(1).numpy())
    mixture.fit_em(passes_over(x), nothing, 30)
    ours = float(mixture.log_prob(x, noise_of()).mean())
    assert ours == pytest.approx(theirs.score(x.flatten(1).numpy()), abs=1e-6)
    np.testing.assert_allclose(mixture.means[0].detach().numpy(), theirs.means_, atol=1e-6)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_the_likelihood_never_falls(kind):
    samples = points_of(300) if kind == "points" else images_of(200)
    mixture = of_points(5) if kind == "points" else build("mixture")
    mixture._spread(passes_over(samples), nothing)
    nats = mixture.fit_em(passes_over(samples), nothing, 25)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(nats))
    assert nats[-1] > nats[0]


def test_em_is_the_same_on_any_number_of_ranks():
    samples = images_of(200)

    def fitted(ranks):
        """Add up the sums of all ranks in turn: each rank's passes run with the sums of the others in mind."""
        mixture = build("mixture")
        mixture._spread(passes_over(samples), nothing)
        for _ in range(4):
            parts = [mixture._expect(passes_over(samples, 64, rank, ranks), nothing) for rank in range(ranks)]
            mixture._maximise(*(sum(part[number] for part in parts) for number in (1, 2, 3)))
        return mixture

    for name, tensor in fitted(3).state_dict().items():
        torch.testing.assert_close(tensor, fitted(1).state_dict()[name], rtol=0, atol=1e-9)


def test_each_pixel_has_a_mixture_of_its_own_over_the_levels():
    """The probability of an image is the product over pixels of integrals over a level, within dequantisation."""
    mixture = build("mixture", size=8)
    with torch.no_grad():
        mixture.means.uniform_(0.2, 0.8)
        mixture.log_deviations.fill_(-2.0)  # Wide against a level: the bound is tight.
    image, other = images_of(2)[:1], images_of(2)[1:]
    bounds = torch.stack([mixture.log_prob(image, noise_of(slot)) for slot in range(200)]).mean(0)
    edges = (((image + 1) * 127.5).round() / LEVELS).flatten()
    deviations, weights = mixture.variances[..., 0].sqrt(), mixture.logits.softmax(1)
    normal = torch.distributions.Normal(mixture.means[..., 0], deviations)
    inside = normal.cdf(edges[:, None] + 1 / LEVELS) - normal.cdf(edges[:, None])
    exact = (weights * inside).sum(1).log().sum()
    assert float(bounds) == pytest.approx(float(exact), abs=0.05)
    mixed = torch.where(torch.arange(64).view(1, 1, 8, 8) % 2 == 0, image, other)
    swapped = torch.where(torch.arange(64).view(1, 1, 8, 8) % 2 == 1, image, other)
    both = [mixture.log_prob(torch.cat([*pair]), noise_of()).sum() for pair in ((image, other), (mixed, swapped))]
    assert abs(float(both[0] - both[1])) < 1.0  # Pixels do not matter to each other, up to dequantisation.


@pytest.mark.parametrize("name", ["mixture", "mixture_of_factor_analysers"])
def test_components_begin_where_the_runs_seed_says(name):
    def start(seed):
        torch.manual_seed(seed)
        network = Mixture((2, 1, 1), 3) if name == "mixture" else FactorAnalysers((1, 8, 8), 2, 2)
        samples = points_of(100) if name == "mixture" else images_of(100)
        network.double().initialise(passes_over(samples), nothing, 0)
        return network.means.detach()

    assert torch.equal(start(0), start(0))
    assert not torch.allclose(start(0), start(1))


def test_more_components_than_samples_are_refused():
    with pytest.raises(UserError, match=r"model\.components: 30, but there are only 20 training samples; set at most"):
        of_points(30).initialise(passes_over(points_of(20)), nothing, 1)


def test_a_component_that_collapses_on_a_sample_is_bounded_and_told(caplog):
    x = torch.cat([points_of(100), torch.full((1, 2, 1, 1), 50.0, dtype=torch.float64)])
    mixture = of_points(4)
    mixture._spread(passes_over(x), nothing)
    with torch.no_grad():
        mixture.means[0, 0] = 50.0
    with caplog.at_level(logging.WARNING):
        nats = mixture.fit_em(passes_over(x), nothing, 10)
    assert "1 of 4 components collapsed on a single sample" in caplog.text
    assert np.isfinite(nats).all()
    assert (mixture.variances >= mixture.floor.square()).all()


def test_the_least_deviation_of_a_pixel_is_that_of_its_level():
    mixture = build("mixture")
    mixture.initialise(passes_over(torch.full((70, 1, 8, 8), -1.0, dtype=torch.float64)), nothing, 3)
    assert mixture.variances.sqrt().min().item() == pytest.approx(LEVEL_DEVIATION, rel=0.1)
