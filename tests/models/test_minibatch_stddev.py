"""Minibatch standard deviation against its definition."""

import pytest
import torch

from ganrun.models.minibatch_stddev import MinibatchStddev


def images(batch, dtype=torch.float64):
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize(("batch", "group"), [(8, 4), (4, 4), (6, 3), (2, 2), (5, 1), (1, 1)])
def test_a_plane_holds_the_deviation_over_the_group_averaged_over_features_and_places(batch, group):
    x = images(batch)
    found = MinibatchStddev()(x)
    assert torch.equal(found[:, :3], x)
    groups = batch // group
    for number in range(groups):
        members = x[number::groups]
        expected = members.std(0, unbiased=False).mean()
        plane = found[number::groups, 3]
        torch.testing.assert_close(plane, expected.expand_as(plane), rtol=1e-4, atol=1e-4)


def test_equal_images_have_none():
    found = MinibatchStddev()(images(1).expand(4, -1, -1, -1))
    assert found[:, 3].max() < 1e-3


def test_its_gradient_is_finite_where_all_are_equal():
    x = images(1).repeat(4, 1, 1, 1).requires_grad_()
    MinibatchStddev()(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_bf16_keeps_small_differences():
    x = 1 + 0.01 * images(4)
    found = MinibatchStddev()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found[0, 3, 0, 0].double(), MinibatchStddev()(x)[0, 3, 0, 0], rtol=0.1, atol=0)
