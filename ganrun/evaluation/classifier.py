"""Small image classifier that trains in seconds on a CPU.

It assigns modes to stacked images, and computes the classification accuracy score (Ravuri & Vinyals 2019,
arXiv:1905.10887): train on generated images with their labels, test on real ones.

Shapes: N images, C channels, S image size, K classes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.rng import key

STEPS = 600
"""Training steps. Fixed for any number of images, so that scores of different sets cost the same and compare."""
BATCH = 128
LEARNING_RATE = 3e-3
_CHUNK = 1_000


class Classifier(nn.Module):
    """CNN with three strided convolutions: uint8 images [N, C, S, S] -> logits [N, K]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_halve(channels, 32), *_halve(32, 64), *_halve(64, 128), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.last = nn.Linear(4 * 128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, K]."""
        logits: Tensor = self.last(self.layers(images.float() / 127.5 - 1))
        return logits


def train_classifier(images: Tensor, labels: Tensor, classes: int, seed: int) -> Classifier:
    """Train a classifier and return it in eval mode, on the device of `images`.

    Equal arguments give equal weights, on the same device type and number of threads.

    Args:
        images: uint8 [N, C, S, S], S at least 8.
        labels: int64 [N] in 0 .. K - 1, on the same device.
        classes: K.
        seed: seed of the initial weights and of the order of the images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "classifier"))
        network = Classifier(images.shape[1], classes)
    network.to(images.device).to(memory_format=torch.channels_last)
    order = torch.Generator().manual_seed(key(seed, "classifier/order"))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for step in range(STEPS):
        # Cosine decay to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983).
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
    """Return the most likely class of each image, int64 [N]."""
    return torch.cat([network(part).argmax(1) for part in torch.split(images, _CHUNK)])


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in 0..1 on uint8 images [N, C, S, S] with labels [N]."""
    return float((predict(network, images) == labels).double().mean())


def stacked_labels(network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Classify stacked images [N, 3, S, S] by a classifier of grey images. Return modes int64 [N] in 0 .. K^3 - 1.

    With a, b, c the classes of the red, green and blue channel the mode is (a K + b) K + c, as `ganrun prepare
    stacked:` numbers it.
    """
    red, green, blue = (predict(network, images[:, channel : channel + 1]) for channel in range(3))
    return (red * classes + green) * classes + blue


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
