"""Synthetic features, and a tiny extractor."""

import math

import torch
from torch import Tensor, nn

from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.moments import FeatureMoments
from ganrun.evaluation.score import build_scores
from ganrun.models.extractors import Extractor, Resized
from ganrun.storage import Folder


def statistics_of(features: Tensor) -> FeatureMoments:
    statistics = FeatureMoments(features.shape[1])
    statistics.update(features)
    return statistics


def clouds(samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Return two sets of correlated, non-negative features, like those of an extractor."""
    generator = torch.Generator().manual_seed(samples)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mix = draw(size, size) / math.sqrt(size)
    real = (draw(samples, size) @ mix + 0.5).relu()
    fake = (draw(samples, size) @ mix * 1.1 + 0.6).relu()
    return real, fake


class WithLogits(nn.Module):
    """Network that returns features and logits, like Inception."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return features, self.classifier(features)


def tiny_extractor(size: int = 16, classes: int = 0) -> Extractor:
    """Return an extractor with a fixed random layer instead of a large network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, size), nn.ReLU())
        network: nn.Module = Resized("bicubic-antialias", 4, features)
        if classes:
            network = WithLogits(network, nn.Linear(size, classes))
    return Extractor("tiny", "0" * 64, size, "bicubic-antialias", network.requires_grad_(False), classes)


def sample(start: int, count: int) -> Tensor:
    """Return images start to start + count - 1; image i depends on i only, as a generator's must."""
    numbers = range(start, start + count)
    return torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in numbers])


def read(start: int, count: int) -> Tensor:
    return to_uint8(sample(start + 10_000, count) * 0.5)


class Reals:
    """Images of `read` in place of a data set."""

    held_out_by = None

    def __init__(self, samples: int, classes: tuple[str, ...] = (), labels: Tensor | None = None) -> None:
        self.samples, self.classes, self._labels = samples, classes, labels
        self.origin = {"data": "synthetic", "samples": samples}
        self.images = read

    def labels(self) -> Tensor | None:
        return self._labels


class Generated:
    """Images of `sample` in place of a generator's."""

    seed, device = 7, torch.device("cpu")

    def __init__(self, images=sample, labels: Tensor | None = None) -> None:
        self.images, self._labels = images, labels

    def labels(self, samples: int) -> Tensor | None:
        return None if self._labels is None else self._labels[:samples]

    def given(self, start: int, count: int) -> dict[str, Tensor]:
        return {}

    def truth(self, start: int, count: int) -> None:
        return None

    horizons = 0

    def later(self, start: int, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        return []


def evaluate(tmp_path, metrics=(), images=sample, samples: int = 103, extractor: Extractor | None = None):
    """Score `images` against those of `read`."""
    cache, scores = Folder(tmp_path / "cache"), build_scores(metrics)
    evaluator = Evaluator(extractor or tiny_extractor(), Reals(samples), samples, scores, cache)
    return evaluator.score(Generated(images))


class Shown:
    """Given images in place of generated ones."""

    seed, device, horizons = 0, torch.device("cpu"), 0

    def __init__(self, images):
        self.all = images

    def images(self, start, count):
        assert start % BATCH == 0
        return self.all[start : start + count]

    def labels(self, samples):
        return None

    def given(self, start, count):
        return {}

    def truth(self, start, count):
        return None

    def later(self, start, images):
        return []
