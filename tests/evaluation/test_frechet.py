"""Fréchet distance against torch-fidelity and closed forms, and on near-singular covariances."""

import math

import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ganrun.evaluation.frechet import _root, frechet_distance, gaussian_distance
from ganrun.evaluation.moments import FeatureMoments
from tests.evaluation.making import clouds, statistics_of


def gaussian(mean: torch.Tensor, covariance: torch.Tensor, count: int = 1_000_001) -> FeatureMoments:
    """Statistics with just these moments."""
    statistics = FeatureMoments(len(mean))
    statistics.moments[0, 0] = count
    statistics.moments[0, 1:] = statistics.moments[1:, 0] = count * mean
    statistics.moments[1:, 1:] = (count - 1) * covariance + count * mean.outer(mean)
    return statistics


def torch_fidelity_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    statistics = [fid_features_to_statistics(features) for features in (real, fake)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


@pytest.mark.parametrize(("samples", "size"), [(300, 8), (2000, 256), (1000, 640)])
def test_agrees_with_torch_fidelity(samples: int, size: int) -> None:
    real, fake = clouds(samples, size)
    ours = frechet_distance(statistics_of(real), statistics_of(fake))
    assert ours == pytest.approx(torch_fidelity_distance(real, fake), rel=1e-11)


def test_agrees_with_fewer_samples_than_dimensions() -> None:
    # looser: theirs takes roots of eigenvalues that are 0 but for rounding
    real, fake = clouds(100, 256)
    ours = frechet_distance(statistics_of(real), statistics_of(fake))
    assert ours == pytest.approx(torch_fidelity_distance(real, fake), rel=1e-6)


def test_agrees_with_constant_and_repeated_features() -> None:
    real, fake = clouds(500, 32)
    for features in (real, fake):
        features[:, 3], features[:, 4], features[:, 6] = 0.7, 0, features[:, 5]
    ours = frechet_distance(statistics_of(real), statistics_of(fake))
    assert ours == pytest.approx(torch_fidelity_distance(real, fake), rel=1e-6)


def test_the_root_of_a_covariance_of_few_samples_is_narrow() -> None:
    _, features = clouds(100, 256)
    covariance = statistics_of(features).covariance
    root = _root(covariance)
    assert root.shape == (256, 99)
    torch.testing.assert_close(root @ root.T, covariance, rtol=0, atol=1e-13 * float(covariance.trace()))


def test_one_side_singular() -> None:
    # rank one against the identity: (s v)(s v)^T has the root s v v^T, whose trace is s
    v, s = torch.full((16,), 0.25, dtype=torch.float64), 3.0
    zero = torch.zeros(16, dtype=torch.float64)
    flat = gaussian(zero, s**2 * v.outer(v))
    full = gaussian(zero, torch.eye(16, dtype=torch.float64))
    assert frechet_distance(flat, full) == pytest.approx(s**2 + 16 - 2 * s, rel=1e-9)


def test_closed_form_for_diagonal_gaussians() -> None:
    # each axis by itself: (m_a - m_b)^2 + (s_a - s_b)^2
    generator = torch.Generator().manual_seed(3)
    mean_a, mean_b = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    deviation_a, deviation_b = torch.rand(2, 50, generator=generator, dtype=torch.float64) + 0.1
    expected = (mean_a - mean_b).square().sum() + (deviation_a - deviation_b).square().sum()
    a, b = gaussian(mean_a, deviation_a.square().diag()), gaussian(mean_b, deviation_b.square().diag())
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("samples", [50, 256, 257, 2000])
def test_equal_sets_are_at_distance_zero(samples: int) -> None:
    real, _ = clouds(samples, 256)
    assert abs(frechet_distance(statistics_of(real), statistics_of(real))) < 1e-9


def test_sets_without_any_spread() -> None:
    a, b = (statistics_of(torch.full((10, 4), value)) for value in (1.0, 3.0))
    assert frechet_distance(a, b) == pytest.approx(16.0, rel=1e-12)


def test_is_symmetric() -> None:
    a, b = (statistics_of(features) for features in clouds(100, 128))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_feature_that_is_not_finite_makes_the_distance_nan(poison: float) -> None:
    real, fake = clouds(100, 8)
    fake[5, 2] = poison
    assert math.isnan(frechet_distance(statistics_of(real), statistics_of(fake)))


def test_features_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="numbers of features differ: 8 and 9"):
        frechet_distance(FeatureMoments(8), FeatureMoments(9))


def test_images_that_differ_by_rounding_alone_have_a_distance():
    collapsed, real = FeatureMoments(64), FeatureMoments(64)
    features = torch.rand(64).expand(200, 64) + 1e-16 * torch.randn(200, 64, dtype=torch.float64)
    collapsed.update(features)
    others = torch.randn(200, 64)
    real.update(others)
    expected = (real.mean - collapsed.mean).square().sum() + real.covariance.trace()
    assert frechet_distance(real, collapsed) == pytest.approx(float(expected), rel=1e-6)


def covariance(size: int, condition: float, seed: int) -> torch.Tensor:
    """Eigenvalues from 1 down to 1 / condition along random axes, in float64 [size, size]."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return (axes * torch.logspace(0, -math.log10(condition), size, dtype=torch.float64)) @ axes.T


@pytest.mark.parametrize("condition", [1.5, 1e3, 1e5, 1e7, 1e9, 1e12])
@pytest.mark.parametrize("equal", [False, True])
def test_fast_and_slow_way_agree_whatever_the_condition(condition: float, equal: bool) -> None:
    # the slow way written out: singular values of the product of symmetric roots
    a = covariance(128, condition, seed=1)
    b = a if equal else covariance(128, condition, seed=2)
    roots = [torch.linalg.eigh(each) for each in (a, b)]
    root_a, root_b = ((v * w.clamp(min=0).sqrt()) @ v.T for w, v in roots)
    expected = a.trace() + b.trace() - 2 * torch.linalg.svdvals(root_a @ root_b).sum()
    zero = torch.zeros(128, dtype=torch.float64)
    traces = float(a.trace() + b.trace())
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(float(expected), rel=1e-9, abs=1e-9 * traces)


def test_near_zero_eigenvalues_are_not_taken_from_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(matrix: torch.Tensor) -> None:
        raise AssertionError("eigenvalues of a nearly singular product were asked for")

    monkeypatch.setattr(torch.linalg, "eigvalsh", refuse)
    a, zero = covariance(64, 1e9, seed=1), torch.zeros(64, dtype=torch.float64)
    assert abs(gaussian_distance(zero, a, zero, a)) < 1e-12
    with pytest.raises(AssertionError):
        gaussian_distance(zero, covariance(64, 10, seed=1), zero, covariance(64, 10, seed=2))


def test_agrees_with_duplicates() -> None:
    real, fake = clouds(400, 64)
    real, fake = torch.cat([real, real[:200]]), fake[:50].repeat(8, 1)
    ours = frechet_distance(statistics_of(real), statistics_of(fake))
    assert ours == pytest.approx(torch_fidelity_distance(real, fake), rel=1e-6)
