"""Reads published data sets in their original files. torchvision downloads them on request."""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.errors import RunError, UserError
from ganrun.preparation.convert_image import Pixels
from ganrun.preparation.find_images import find_images
from ganrun.preparation.folder import FolderSource
from ganrun.preparation.sources import ArraySource, Remarks
from ganrun.storage import expand_user

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
    """Read the 60,000 training images of Fashion-MNIST, padded by 2 pixels on each side to 32x32, a power of two.

    Raises:
        UserError: the idx files are not at `path`, or are invalid.
        RunError: the download failed.
    """
    if download:
        from torchvision.datasets import FashionMNIST

        _download("fashion-mnist", lambda: FashionMNIST(path, download=True))
    root = Path(expand_user(path))
    images = _read_idx(_find_idx(root, "train-images-idx3-ubyte"), dimensions=3)
    labels = _read_idx(_find_idx(root, "train-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"fashion-mnist:{path}: {len(images)} images but {len(labels)} labels; download it again")
    if labels.max(initial=0) >= len(FASHION_CLASSES):
        raise UserError(f"fashion-mnist:{path}: label {labels.max()}, allowed are 0 to 9; download it again")
    padded = np.pad(images[:limit], ((0, 0), (2, 2), (2, 2)))
    name = "fashion-mnist, training images padded by 2"
    return ArraySource(name, padded, labels[:limit].tolist(), FASHION_CLASSES)


def open_cifar10(path: str, limit: int | None, download: bool) -> ArraySource:
    """Read the 50,000 training images of CIFAR-10, RGB 32x32. torchvision checks the hashes of the files.

    Raises:
        UserError: the files are not at `path`, or are corrupt.
        RunError: the download failed.
    """
    from torchvision.datasets import CIFAR10

    if download:
        _download("cifar10", lambda: CIFAR10(path, download=True))
    try:
        data = CIFAR10(expand_user(path))
    except RuntimeError as error:
        raise UserError(
            f"cifar10:{path}: no valid cifar-10-batches-py; give the folder that holds it, or add --download"
        ) from error
    return ArraySource("cifar10, training images", data.data[:limit], data.targets[:limit], tuple(data.classes))


def open_celeba(path: str, limit: int | None, download: bool) -> FolderSource:
    """Read the 202,599 aligned faces of CelebA in the order of their numbers, with 40 attributes each as .json.

    The default size is 64x64: the centre square of 178 pixels, resized.

    Raises:
        UserError: no `img_align_celeba` at `path` or in its sub-folder `celeba`, or attributes are missing.
        RunError: the download failed.
    """
    if download:
        from torchvision.datasets import CelebA

        _download("celeba", lambda: CelebA(path, split="all", download=True))
    places = [Path(expand_user(path)), Path(expand_user(path), "celeba")]
    root = next((place for place in places if (place / "img_align_celeba").is_dir()), None)
    if root is None:
        raise UserError(
            f"celeba:{path}: no folder img_align_celeba; unpack img_align_celeba.zip there, or add --download"
        )
    images = root / "img_align_celeba"
    found = find_images(str(images))
    paths = found.images[:limit]
    if not paths:
        raise UserError(f"celeba:{path}: no images in {images}; unpack img_align_celeba.zip there")
    members = _attributes(root / "list_attr_celeba.txt", paths)
    unread = tuple(f"{images}/{name}: {reason}" for name, reason in found.unread.items())
    remarks = Remarks(unread, found.left_out())
    return FolderSource("celeba, aligned", str(images), paths, members, size=64, remarks=remarks)


def _attributes(file: Path, paths: list[str]) -> dict[str, dict[str, bytes]]:
    """Return .json members such as {"Male": true, ...} by path; empty if the file does not exist."""
    if not file.is_file():
        return {}
    try:
        _, header, *lines = file.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise UserError(f"celeba: {file} is not the list of attributes ({error}); download it again") from error
    names = header.split()
    members = {}
    for line in lines:
        path, *values = line.split() or [""]
        if len(values) != len(names):
            raise UserError(f"celeba: {file}: {len(values)} values for {path!r}, not {len(names)}; download it again")
        pairs = (f'"{name}": {"true" if value == "1" else "false"}' for name, value in zip(names, values, strict=True))
        members[path] = {"json": ("{" + ", ".join(pairs) + "}").encode()}
    if missing := [path for path in paths if path not in members]:
        raise UserError(f"celeba: {file} has no line for {missing[0]}; download it again")
    return {path: members[path] for path in paths}


def _find_idx(root: Path, name: str) -> Path:
    """Find an idx file, gzipped or not, in the folder or where torchvision puts it.

    Raises:
        UserError: no such file.
    """
    for folder in (root, root / "FashionMNIST" / "raw"):
        for file in (folder / f"{name}.gz", folder / name):
            if file.is_file():
                return file
    raise UserError(
        f"fashion-mnist:{root}: no {name}.gz; give the folder that holds it, or add --download "
        "(Debian's package dataset-fashion-mnist has it too)"
    )


def _read_idx(file: Path, dimensions: int) -> Pixels:
    """Read an IDX file: two zero bytes, type 8 (uint8), number of dimensions, each size as big-endian uint32, data.

    Raises:
        UserError: the file cannot be read, or is not such a file.
    """
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot read it ({error}); download it again") from error
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"{file}: starts with {data[:4].hex()}, expected 0000080{dimensions} (IDX); download it again")
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", data[4:start]) if len(data) >= start else (0,)
    if len(data) != start + np.prod(shape, dtype=np.int64) or len(data) == start:
        raise UserError(f"{file}: {len(data)} bytes do not match the shape {shape} in its header; download it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _download(name: str, fetch: Callable[[], Any]) -> None:
    try:
        fetch()
    except Exception as error:  # the network, the server and torchvision's optional parts may raise anything
        raise RunError(f"{name}: the download failed ({error}); download the files by hand") from error
