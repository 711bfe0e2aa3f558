"""Moments are independent of batches and merging."""

import numpy as np
import pytest
import torch

from ganrun.evaluation.moments import FeatureMoments


def statistics_of(features: torch.Tensor) -> FeatureMoments:
    statistics = FeatureMoments(features.shape[1])
    statistics.update(features)
    return statistics


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(1000, 33, generator=torch.Generator().manual_seed(0)) * 2 + 3


def test_mean_and_covariance_are_numpys(features: torch.Tensor) -> None:
    statistics = statistics_of(features)
    expected = features.double().numpy()
    assert statistics.count == 1000
    np.testing.assert_allclose(statistics.mean, expected.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(expected, rowvar=False), rtol=0, atol=1e-13)


def test_odd_chunks_and_merges_equal_all_at_once(features: torch.Tensor) -> None:
    left, right = FeatureMoments(33), FeatureMoments(33)
    for number, chunk in enumerate(features.split([1, 7, 500, 3, 488, 1])):
        (left if number % 2 else right).update(chunk)
    left.merge(right)
    torch.testing.assert_close(left.moments, statistics_of(features).moments, rtol=1e-13, atol=0)
    assert left.count == 1000


def test_a_large_mean_does_not_drown_the_covariance() -> None:
    noise = torch.randn(5000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shifted, plain = statistics_of(noise + 1000), statistics_of(noise)
    torch.testing.assert_close(shifted.covariance, plain.covariance, rtol=0, atol=1e-8)


def test_a_covariance_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        _ = statistics_of(torch.ones(1, 3)).covariance
