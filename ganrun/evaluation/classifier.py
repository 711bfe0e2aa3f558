"""A small classifier of images, trained in seconds on a CPU: names the modes of stacked images, and gives the
classification accuracy score (Ravuri & Vinyals 2019, arXiv:1905.10887): train it on generated images and
their labels, and take its accuracy on real ones.

Shapes: N images, C channels, S pixels a side, K classes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.rng import key

STEPS = 600
"""The same for any number of images, so that scores of different sets cost and mean the same."""
BATCH = 128
LEARNING_RATE = 3e-3
_CHUNK = 1_000


class Classifier(nn.Module):
    """Images [N, C, S, S], uint8 -> logits [N, K]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_halve(channels, 32), *_halve(32, 64), *_halve(64, 128), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.last = nn.Linear(4 * 128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the classes."""
        logits: Tensor = self.last(self.layers(images.float() / 127.5 - 1))
        return logits


def train_classifier(images: Tensor, labels: Tensor, classes: int, seed: int) -> Classifier:
    """A classifier of these images, in eval mode; equal arguments give equal weights (on as many threads).

    Args:
        images: uint8 [N, C, S, S], S at least 8; they stay where they are, and the classifier is made there.
        labels: int64 [N] in 0..classes - 1.
        classes: K.
        seed: of its first weights and of the order of the images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "classifier"))
        network = Classifier(images.shape[1], classes)
    network.to(images.device).to(memory_format=torch.channels_last)
    order = torch.Generator().manual_seed(key(seed, "classifier/order"))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for step in range(STEPS):
        # Down to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        drawn = torch.randint(len(images), (BATCH,), generator=order).to(images.device)
        loss: Tensor = F.cross_entropy(network(images[drawn]), labels[drawn])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    return network


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """The likeliest class of each image, int64 [N]."""
    return torch.cat([network(part).argmax(1) for part in torch.split(images, _CHUNK)])


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images [N, C, S, S] whose likeliest class is their label [N]."""
    return float((predict(network, images) == labels).double().mean())


def stacked_labels(network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """The mode of images [N, 3, S, S] that are three grey ones, as `ganrun prepare stacked:` numbers them.

    With a, b and c the classes of red, green and blue by a classifier of grey images, (a K + b) K + c.
    """
    red, green, blue = (predict(network, images[:, channel : channel + 1]) for channel in range(3))
    return (red * classes + green) * classes + blue


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
