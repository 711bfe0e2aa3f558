"""KID against torch-fidelity on the same subsets, and against the sums of the paper."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from ganrun.evaluation.kid import draw_subsets, kernel_distance
from tests.evaluation.making import clouds


def torch_fidelitys_subsets(real, fake, subsets, size, seed):
    """As it draws them."""
    random = np.random.RandomState(seed)
    for _ in range(subsets):
        yield tuple(torch.from_numpy(random.choice(count, size, replace=False)) for count in (real, fake))


def awkward(case):
    real, fake = clouds(300, 48)
    match case:
        case "fewer samples than dimensions":
            return clouds(60, 200)
        case "a constant feature":
            real[:, 3] = fake[:, 3] = 0.7
        case "duplicates":
            real, fake = real[:30].repeat(10, 1), fake[:20].repeat(15, 1)
        case "other numbers of samples":
            real = real[:170]
    return real, fake


@pytest.mark.parametrize(
    "case", ["plain", "fewer samples than dimensions", "a constant feature", "duplicates", "other numbers of samples"]
)
def test_agrees_with_torch_fidelity(case):
    real, fake = awkward(case)
    ours = kernel_distance(real, fake, torch_fidelitys_subsets(len(real), len(fake), 20, 50, seed=7))
    theirs = kid_features_to_metric(real, fake, kid_subsets=20, kid_subset_size=50, rng_seed=7, verbose=False)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_the_unbiased_estimate_written_out():
    x, y = (features[:6] for features in clouds(20, 4))
    pairs = [(i, j) for i in range(6) for j in range(6)]

    def k(a, b):
        return float((a @ b / 4 + 1) ** 3)

    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 30
    expected = within - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 36
    rows = torch.arange(6)
    assert kernel_distance(x, y, [(rows, rows)]).mean == pytest.approx(expected, rel=1e-12)


def test_unbiased_around_zero_for_equal_distributions():
    generator = torch.Generator().manual_seed(0)
    real, same = torch.randn(2, 2000, 8, generator=generator)
    subsets = [(torch.arange(i * 20, i * 20 + 20),) * 2 for i in range(100)]
    mean, deviation = kernel_distance(real, same, subsets)
    assert abs(mean) < 3 * deviation / 10  # the error of a mean of 100 independent ones
    assert mean != 0


def test_subsets_are_the_same_every_time_and_never_repeat_a_row():
    first, second = (list(draw_subsets(1500, 40, seed=3)) for _ in range(2))
    assert len(first) == 100
    for (rows, others), (again, _) in zip(first, second, strict=True):
        assert torch.equal(rows, again)
        assert len(rows.unique()) == len(others.unique()) == 40
    assert not torch.equal(first[0][0], next(draw_subsets(1500, 40, seed=4))[0])


def test_a_whole_set_against_itself_in_another_order_is_below_zero_by_the_diagonal_alone():
    # the unbiased estimate of identical sets counts k(x, x) on one side only: 2 (mean off the diagonal - mean of all)
    real, _ = clouds(50, 8)
    kernel = (real @ real.T / 8 + 1) ** 3
    expected = 2 * ((kernel.sum() - kernel.trace()) / (50 * 49) - kernel.mean())
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    ours = kernel_distance(real, real[order], [(torch.arange(50), torch.arange(50))]).mean
    assert ours == pytest.approx(float(expected), rel=1e-9)


def test_one_subset_of_all_samples_has_no_deviation():
    real, fake = clouds(50, 8)
    subsets = list(draw_subsets(50, 50, seed=3))
    assert len(subsets) == 1
    mean, deviation = kernel_distance(real, fake, subsets)
    assert math.isfinite(mean)
    assert math.isnan(deviation)
    assert len(list(draw_subsets(50, 60, seed=3))) == 100
