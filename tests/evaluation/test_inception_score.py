"""Inception score against torch-fidelity, and at both ends of its range."""

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from ganrun.evaluation.inception_score import inception_score


@pytest.mark.parametrize("samples", [1000, 123])
def test_agrees_with_torch_fidelity(samples):
    logits = torch.randn(samples, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    ours = inception_score(logits)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert ours.deviation == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_sure_and_even_is_the_number_of_classes():
    logits = (torch.eye(5) * 1000).repeat(20, 1)
    assert inception_score(logits).mean == pytest.approx(5, rel=1e-12)


def test_unsure_or_always_the_same_is_one():
    assert inception_score(torch.zeros(50, 7)).mean == pytest.approx(1, rel=1e-12)
    one_class = torch.zeros(50, 7)
    one_class[:, 2] = 1000
    assert inception_score(one_class).mean == pytest.approx(1, rel=1e-12)
