"""Stacked Fashion-MNIST: three grey images as red, green and blue, so 1,000 modes (Metz et al. 2017,
arXiv:1611.02163, with these in place of digits)."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganrun.data.index import open_data
from ganrun.data.shard import open_shard
from ganrun.preparation.convert_image import Pixels
from ganrun.preparation.published_datasets import open_fashion_mnist
from ganrun.preparation.sources import Item, Part, Shape, hash_of, key_of, shuffled_parts

CLASSES = 10
PACKAGE = "package:fashion-mnist-10k"


@dataclass(frozen=True)
class StackedSource:
    """Grey `images` uint8 [N, H, W] with their `labels` [N]; a sample is the three that a row of `triples` [M, 3]
    names. Stacked when they are asked for, since all of them together are large."""

    name: str
    images: Pixels
    labels: NDArray[np.int64]
    triples: NDArray[np.int64]
    classes: tuple[str, ...] = tuple(f"{number:03d}" for number in range(CLASSES**3))
    size: int | None = None

    def identity(self) -> str:
        """Over all pixels, labels and triples."""
        return hash_of([self.images.tobytes(), self.labels.tobytes(), self.triples.tobytes()])

    def shapes(self, workers: int) -> dict[Shape, str]:
        """All are equal."""
        height, width = self.images.shape[1:]
        return {(width, height, 3): self.name}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffled."""
        return shuffled_parts(len(self.triples), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Pixels with 100 a + 10 b + c as .cls, where a, b and c are the classes of red, green and blue."""
        for place, number in enumerate(part.numbers):
            triple = self.triples[number]
            label = int(self.labels[triple] @ (CLASSES**2, CLASSES, 1))
            pixels = np.ascontiguousarray(self.images[triple].transpose(1, 2, 0))
            yield Item(key_of(part, place), f"{self.name}, image {number}", pixels, {"cls": str(label).encode()})


def open_stacked(path: str, samples: int, seed: int, download: bool) -> StackedSource:
    """`samples` stacks drawn by lot from the 60,000 training images in the idx files at `path`, or from the 10,000
    that travel with ganrun where `path` is `package:fashion-mnist-10k`.

    Raises:
        UserError: the idx files are not at `path`, or not what they should be.
        RunError: the download failed.
    """
    if path == PACKAGE:
        images, labels = _read_package()
    else:
        source = open_fashion_mnist(path, None, download)
        images, labels = source.images, np.asarray(source.labels)
    stream = np.random.Generator(np.random.Philox(seed))
    triples = stream.integers(len(images), size=(samples, 3))
    return StackedSource("stacked fashion-mnist", images, labels.astype(np.int64), triples)


def _read_package() -> tuple[Pixels, NDArray[np.int64]]:
    data = open_data(PACKAGE)
    samples = [
        members
        for number, shard in enumerate(data.index.shards)
        for _, members in open_shard(data.read(number), shard, data.where(number))
    ]
    images = np.stack([np.asarray(Image.open(io.BytesIO(members["png"]))) for members in samples])
    return images, np.array([int(bytes(members["cls"])) for members in samples])
