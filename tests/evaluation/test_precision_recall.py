"""Precision and recall against torch-fidelity, density and coverage against their formulas, pair by pair."""

import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from ganrun.evaluation import precision_recall
from ganrun.evaluation.precision_recall import nearest, neighbourhoods
from tests.evaluation.making import clouds


def sets(case):
    real, fake = clouds(300, 8)
    match case:
        case "other numbers of samples":
            return real[:130], fake
        case "fewer samples than dimensions":
            return clouds(40, 100)
        case "a constant feature":
            real[:, 3] = fake[:, 3] = 0.7
        case "duplicates":
            return torch.cat([real[:100]] * 2), torch.cat([fake[:90], fake[:10], real[:20]])
        case "far from the origin":
            return real + 1000, fake + 1000
        case "one image again and again":
            return real, fake[:1].repeat(50, 1)
    return real, fake


CASES = [
    "plain",
    "other numbers of samples",
    "fewer samples than dimensions",
    "a constant feature",
    "duplicates",
    "far from the origin",
    "one image again and again",
]


def radii(features, k):
    distances = (features[:, None] - features).norm(dim=2)
    return distances.sort(dim=1).values[:, k]


@pytest.mark.parametrize("case", CASES)
def test_agree_with_the_formulas_pair_by_pair(case):
    real, fake = sets(case)
    between = (real[:, None] - fake).norm(dim=2)
    three, five, of_fakes = radii(real, 3)[:, None], radii(real, 5)[:, None], radii(fake, 3)
    ours = neighbourhoods(real, fake)
    assert ours.precision == pytest.approx(float((between <= three).any(0).double().mean()), rel=1e-12)
    assert ours.recall == pytest.approx(float((between <= of_fakes).any(1).double().mean()), rel=1e-12)
    assert ours.density == pytest.approx(float((between <= five).double().sum()) / (5 * len(fake)), rel=1e-12)
    assert ours.coverage == pytest.approx(float((between <= five).any(1).double().mean()), rel=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("duplicates", "one image again and again")])
def test_agree_with_torch_fidelity(case):
    # where distances are 0, it takes what rounding leaves of them for distances
    real, fake = sets(case)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=10000, verbose=False)
    ours = neighbourhoods(real, fake)
    assert ours.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert ours.recall == pytest.approx(theirs["recall"], rel=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 8 * 300 * 7])
def test_chunks_change_nothing(chunk_bytes, monkeypatch):
    real, fake = clouds(300, 8)
    whole = neighbourhoods(real, fake)
    monkeypatch.setattr(precision_recall, "CHUNK_BYTES", chunk_bytes)
    assert neighbourhoods(real, fake) == whole


@pytest.mark.parametrize("size", [8, 300])
def test_identical_sets_are_wholly_within_each_other(size):
    real, _ = clouds(200, size)
    real = real.float() + 5
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    precision, recall, density, coverage = neighbourhoods(real, real[order])
    assert (precision, recall, coverage) == (1, 1, 1)
    assert density == pytest.approx(6 / 5, rel=1e-12)  # each ball holds its centre and 5 neighbours


def test_far_apart_sets_share_nothing():
    real, fake = clouds(50, 8)
    assert neighbourhoods(real, fake + 1e4) == (0, 0, 0, 0)


def test_too_few_samples_are_refused():
    real, fake = clouds(50, 8)
    with pytest.raises(
        ValueError, match="5 neighbours need more than 5 samples on each side, got 50 real and 5 generated"
    ):
        neighbourhoods(real, fake[:5])


def test_nearest_is_the_nearest():
    real, fake = clouds(90, 8)
    rows, distances = nearest(real, fake)
    expected = (fake[:, None] - real).norm(dim=2)
    assert torch.equal(rows[:, 0], expected.argmin(1))
    torch.testing.assert_close(distances[:, 0], expected.double().amin(1), rtol=1e-5, atol=1e-5)
