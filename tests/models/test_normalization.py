"""Batch normalisation per slot against PyTorch's own."""

import pytest
import torch
from torch import nn

from ganrun.models import slot_statistics
from ganrun.models.normalization import SlotBatchNorm2d, SlotConditionalBatchNorm2d


def pair(channels=3):
    """The same weights twice: ours and PyTorch's."""
    torch.manual_seed(0)
    ours, theirs = SlotBatchNorm2d(channels).double(), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def batch(seed, size=4):
    return torch.randn(size, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def update_running_stats(norm):
    (row,) = norm.take_batch_stats(1)
    assert row[-1] == 1
    slot_statistics.update_running_stats([norm], row)


def test_one_slot_has_the_outputs_and_gradients_of_pytorch():
    ours, theirs = pair()
    results = []
    for norm in (ours, theirs):
        x = batch(1).requires_grad_()
        y = norm(x)
        (y**3).sum().backward()
        results.append((y.detach(), x.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(*results)


def test_one_slot_has_the_running_statistics_of_pytorch_round_after_round():
    ours, theirs = pair()
    for seed in range(5):
        ours(batch(seed))
        update_running_stats(ours)
        theirs(batch(seed))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(batch(9)), theirs.eval()(batch(9)))


def test_each_slot_is_normalised_by_itself():
    ours, _ = pair()
    ours.weight.data.fill_(1)
    ours.bias.data.fill_(0)
    for slot in (batch(1), batch(2) + 100):
        y = ours(slot)
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_several_slots_move_the_running_statistics_by_their_mean():
    ours, _ = pair()
    slots = [batch(seed) for seed in range(3)]
    for slot in slots:
        ours(slot)
    update_running_stats(ours)
    mean = torch.stack([slot.mean((0, 2, 3)) for slot in slots]).mean(0)
    variance = torch.stack([slot.var((0, 2, 3)) for slot in slots]).mean(0)
    torch.testing.assert_close(ours.running_mean, 0.1 * mean)
    torch.testing.assert_close(ours.running_var, 0.9 + 0.1 * variance)


def test_running_statistics_stand_still_until_the_round_is_settled():
    ours, _ = pair()
    before = ours.running_mean.clone(), ours.running_var.clone()
    ours(batch(1))
    assert torch.equal(ours.running_mean, before[0])
    assert torch.equal(ours.running_var, before[1])


def test_what_was_taken_is_not_taken_again():
    ours, _ = pair()
    ours(batch(1))
    assert [row[-1].item() for row in ours.take_batch_stats(2)] == [1, 0]
    assert ours.take_batch_stats(1)[0].tolist() == [0] * 7


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pass_in_which_it_is_not_trained_is_normalised_alike_but_not_noted(frozen):
    ours, theirs = pair()
    expected = theirs(batch(1)).detach()
    if frozen:
        found = ours.requires_grad_(False)(batch(1))
    else:
        with torch.no_grad():
            found = ours(batch(1))
    torch.testing.assert_close(found, expected)
    assert ours.recorded == {}
    assert ours.running_mean.abs().sum() == 0


def test_statistics_that_are_not_finite_move_nothing():
    ours, _ = pair()
    ours(batch(1))
    update_running_stats(ours)
    before = ours.running_mean.clone(), ours.running_var.clone()
    ours(batch(2) * torch.nan)
    update_running_stats(ours)
    assert torch.equal(ours.running_mean, before[0])
    assert torch.equal(ours.running_var, before[1])


# Conditional.


def conditional(classes=2):
    torch.manual_seed(0)
    norm = SlotConditionalBatchNorm2d(3, classes).double()
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    return norm


def of_class(norm, number):
    """The plain one with the gain and bias of a class."""
    plain = SlotBatchNorm2d(3).double()
    plain.weight.data.copy_(norm.weight[number])
    plain.bias.data.copy_(norm.bias[number])
    plain.running_mean.copy_(norm.running_mean)
    plain.running_var.copy_(norm.running_var)
    return plain


@pytest.mark.parametrize("training", [True, False])
def test_each_image_has_the_gain_and_bias_of_its_class(training):
    norm, label, x = conditional(), torch.tensor([0, 1, 1, 0]), batch(1)
    norm(x, label)
    update_running_stats(norm)
    norm.train(training)
    found = norm(x, label)
    for number in (0, 1):
        expected = of_class(norm, number).train(training)(x)
        torch.testing.assert_close(found[label == number], expected[label == number])


def test_it_begins_as_plain_batch_normalisation():
    torch.testing.assert_close(
        SlotConditionalBatchNorm2d(3, 5).double()(batch(1), torch.arange(4)), SlotBatchNorm2d(3).double()(batch(1))
    )


def test_running_statistics_are_those_of_all_classes_together():
    norm, plain = conditional(), pair()[0]
    for seed in range(3):
        norm(batch(seed), torch.tensor([0, 0, 1, 0]))
        plain(batch(seed))
        update_running_stats(norm)
        update_running_stats(plain)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)


def test_conditional_too_a_frozen_pass_is_not_noted():
    norm = conditional().requires_grad_(False)
    norm(batch(1), torch.tensor([0, 0, 1, 0]))
    assert norm.recorded == {}


def test_a_class_that_is_not_in_the_batch_has_no_gradient():
    norm = conditional(3)
    norm(batch(1), torch.tensor([0, 0, 2, 0])).square().sum().backward()
    for parameter in norm.parameters():
        assert (parameter.grad.abs().sum(1) > 0).tolist() == [True, False, True]
