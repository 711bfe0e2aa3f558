"""The small classifier on synthetic bars and on Fashion-MNIST."""

import pytest
import torch

from ganrun.evaluation.classifier import accuracy, predict, stacked_labels, train_classifier
from ganrun.preparation.stacked import open_stacked

CLASSES = 4


def bars(count, seed, channels=1):
    """A light bar in one of four places, in noise."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=stream)
    images = torch.randint(0, 100, (count, channels, 16, 16), generator=stream, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 4] += 100
    return images, labels


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """A fifth of the steps: what is tested does not need more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganrun.evaluation.classifier.STEPS", 120)
        yield


@pytest.fixture(scope="module")
def network(few_steps):
    return train_classifier(*bars(400, 0), CLASSES, seed=0)


def test_it_learns_and_is_measured_on_what_it_has_not_seen(network):
    images, labels = bars(200, 1)
    assert accuracy(network, images, labels) > 0.97
    wrong = (labels + 1) % CLASSES
    assert accuracy(network, images, wrong) < 0.03
    assert not network.training


def test_accuracy_is_the_share_that_is_right(network):
    images, _ = bars(20, 1)
    found = predict(network, images)
    found[:5] += 1
    assert accuracy(network, images, found) == 0.75


def test_equal_seeds_give_equal_weights_and_leave_torchs_own_alone():
    images, labels = bars(50, 0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (train_classifier(images, labels, CLASSES, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not torch.equal(first["last.weight"], other["last.weight"])


def test_stacks_are_numbered_by_their_channels(network):
    images, labels = bars(12, 1)
    stacks, digits = images.view(4, 3, 16, 16), predict(network, images).view(4, 3)
    assert torch.equal(digits, labels.view(4, 3))
    expected = digits @ torch.tensor([CLASSES**2, CLASSES, 1])
    assert torch.equal(stacked_labels(network, stacks, CLASSES), expected)


def test_it_knows_real_garments():
    source = open_stacked("package:fashion-mnist-10k", 1, 0, False)
    images, labels = torch.from_numpy(source.images.copy())[:, None], torch.from_numpy(source.labels)
    network = train_classifier(images[:8_000], labels[:8_000], 10, seed=0)
    assert accuracy(network, images[8_000:], labels[8_000:]) > 0.8
