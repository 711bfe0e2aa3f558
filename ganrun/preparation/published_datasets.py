"""Published data sets, in the files their authors give out; torchvision fetches them if asked to."""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.errors import RunError, UserError
from ganrun.preparation.convert_image import Pixels
from ganrun.preparation.folder import FolderSource, find_images
from ganrun.preparation.sources import ArraySource

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""https://github.com/zalandoresearch/fashion-mnist#labels"""


def open_fashion_mnist(path: str, limit: int | None, download: bool) -> ArraySource:
    """The 60,000 training images, padded by 2 on each side to 32x32 so that sizes halve evenly.

    Raises:
        UserError: the idx files are not at `path`, or not what they should be.
        RunError: the download failed.
    """
    if download:
        from torchvision.datasets import FashionMNIST

        _download("fashion-mnist", lambda: FashionMNIST(path, download=True))
    root = Path(path).expanduser()
    images = _read_idx(_find_idx(root, "train-images-idx3-ubyte"), dimensions=3)
    labels = _read_idx(_find_idx(root, "train-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"fashion-mnist:{path}: {len(images)} images but {len(labels)} labels; fetch it again")
    if labels.max(initial=0) >= len(FASHION_CLASSES):
        raise UserError(f"fashion-mnist:{path}: label {labels.max()}, allowed are 0 to 9; fetch it again")
    padded = np.pad(images[:limit], ((0, 0), (2, 2), (2, 2)))
    name = "fashion-mnist, training images padded by 2"
    return ArraySource(name, padded, labels[:limit].tolist(), FASHION_CLASSES)


def open_cifar10(path: str, limit: int | None, download: bool) -> ArraySource:
    """The 50,000 training images, 32x32 in colour. torchvision checks the files' hashes before it reads them.

    Raises:
        UserError: the files are not at `path`, or damaged.
        RunError: the download failed.
    """
    from torchvision.datasets import CIFAR10

    if download:
        _download("cifar10", lambda: CIFAR10(path, download=True))
    try:
        data = CIFAR10(path)
    except RuntimeError as error:
        raise UserError(
            f"cifar10:{path}: no whole cifar-10-batches-py in it; give the folder that holds it, or --download"
        ) from error
    return ArraySource("cifar10, training images", data.data[:limit], data.targets[:limit], tuple(data.classes))


def open_celeba(path: str, limit: int | None, download: bool) -> FolderSource:
    """The 202,599 aligned faces with their 40 attributes as .json, in the order of their numbers. At 64x64
    unless told otherwise: the centre square of 178 pixels, resized.

    Raises:
        UserError: no `img_align_celeba` at `path` or in its sub-folder `celeba`.
        RunError: the download failed.
    """
    if download:
        from torchvision.datasets import CelebA

        _download("celeba", lambda: CelebA(path, split="all", download=True))
    places = [Path(path).expanduser(), Path(path).expanduser() / "celeba"]
    root = next((place for place in places if (place / "img_align_celeba").is_dir()), None)
    if root is None:
        raise UserError(f"celeba:{path}: no folder img_align_celeba in it; unpack img_align_celeba.zip there")
    images = root / "img_align_celeba"
    paths = find_images(str(images))[:limit]
    if not paths:
        raise UserError(f"celeba:{path}: no images in {images}; unpack img_align_celeba.zip there")
    return FolderSource(
        "celeba, aligned", str(images), paths, _attributes(root / "list_attr_celeba.txt", paths), size=64
    )


def _attributes(file: Path, paths: list[str]) -> dict[str, dict[str, bytes]]:
    """{"Male": true, ...} as .json for each image; nothing if the file is not there."""
    if not file.exists():
        return {}
    _, header, *lines = file.read_text().splitlines()
    names = header.split()
    members = {}
    for line in lines:
        path, *values = line.split()
        pairs = (f'"{name}": {"true" if value == "1" else "false"}' for name, value in zip(names, values, strict=True))
        members[path] = {"json": ("{" + ", ".join(pairs) + "}").encode()}
    if missing := [path for path in paths if path not in members]:
        raise UserError(f"celeba: {file} has no line for {missing[0]}; fetch it again")
    return {path: members[path] for path in paths}


def _find_idx(root: Path, name: str) -> Path:
    """In the folder itself or where torchvision puts it, gzipped or not."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        for file in (folder / f"{name}.gz", folder / name):
            if file.is_file():
                return file
    raise UserError(
        f"fashion-mnist:{root}: no {name}.gz in it; give the folder that holds it, or --download "
        "(Debian's package dataset-fashion-mnist carries it too)"
    )


def _read_idx(file: Path, dimensions: int) -> Pixels:
    """IDX: two zero bytes, type 8 (uint8), the number of dimensions, each as big-endian uint32, the bytes."""
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); fetch it again") from error
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(
            f"{file}: begins with {data[:4].hex()}, an idx file of this kind with 0000080{dimensions}; fetch it again"
        )
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", data[4:start]) if len(data) >= start else (0,)
    if len(data) != start + np.prod(shape, dtype=np.int64) or len(data) == start:
        raise UserError(f"{file}: {len(data)} bytes do not fit its header {shape}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _download(name: str, fetch: Callable[[], Any]) -> None:
    try:
        fetch()
    except Exception as error:  # whatever the network, the server or torchvision's optional parts raise
        raise RunError(f"{name}: the download failed ({error}); fetch the files by hand") from error
