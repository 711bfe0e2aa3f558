"""Stacked Fashion-MNIST: three random grey images as red, green and blue channel, hence 1,000 modes.

The stacked MNIST of Metz et al. 2017 (arXiv:1611.02163), with Fashion-MNIST instead of digits.
"""

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
from ganrun.preparation.sources import NO_REMARKS, Item, Part, Remarks, Shape, hash_of, key_of, shuffled_parts

CLASSES = 10
PACKAGE = "package:fashion-mnist-10k"


@dataclass(frozen=True)
class StackedSource:
    """Stacks of three grey images, made on demand to save memory.

    Attributes:
        images: grey images, uint8 [N, H, W].
        labels: their classes 0..9, int64 [N].
        triples: the three images of each stack, as rows of `images`, int64 [M, 3].
    """

    name: str
    images: Pixels
    labels: NDArray[np.int64]
    triples: NDArray[np.int64]
    classes: tuple[str, ...] = tuple(f"{number:03d}" for number in range(CLASSES**3))
    size: int | None = None
    remarks: Remarks = NO_REMARKS

    def identity(self) -> str:
        """Return a hash of all pixels, labels and triples."""
        return hash_of([self.images.tobytes(), self.labels.tobytes(), self.triples.tobytes()])

    old_identity = identity

    def shapes(self, workers: int) -> dict[Shape, str]:
        """Return the one shape that all stacks have."""
        height, width = self.images.shape[1:]
        return {(width, height, 3): self.name}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the stacks over shards."""
        return shuffled_parts(len(self.triples), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield stacks, with 100 a + 10 b + c as .cls for classes a, b, c of the red, green and blue channel."""
        for place, number in enumerate(part.numbers):
            triple = self.triples[number]
            label = int(self.labels[triple] @ (CLASSES**2, CLASSES, 1))
            pixels = np.ascontiguousarray(self.images[triple].transpose(1, 2, 0))
            yield Item(key_of(part, place), f"{self.name}, image {number}", pixels, {"cls": str(label).encode()})


def open_stacked(path: str, samples: int, seed: int, download: bool) -> StackedSource:
    """Draw random stacks of Fashion-MNIST images.

    Args:
        path: folder of the idx files with 60,000 training images, or `package:fashion-mnist-10k`, the 10,000 bundled
            with ganrun.
        samples: number of stacks.
        seed: seed of the draw.
        download: download the idx files to `path`.

    Raises:
        UserError: the idx files are not at `path`, or are invalid.
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
