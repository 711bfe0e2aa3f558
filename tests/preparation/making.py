"""Helpers that make small images, folders, idx files and shards, and run the command in one process."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganrun.data.index import Index, open_data
from ganrun.data.shard import Sample, open_shard
from ganrun.preparation.pack import write_tar
from ganrun.prepare import main

CIRCLE = '<circle cx="16" cy="16" r="8" fill="{}"/>'


def noise(seed: int, size: tuple[int, int] = (8, 8), channels: int = 3) -> Image.Image:
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def folder_of(root: Path, count: int = 20, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number in range(count):
        place = root / classes[number % len(classes)] if classes else root
        place.mkdir(parents=True, exist_ok=True)
        noise(number).save(place / f"{number:03d}.png")
    return root


def idx(root: Path, images: int = 12, labels: int = 12, magic: int = 3, cut: int | None = None) -> Path:
    root.mkdir(exist_ok=True)
    pixels = np.arange(images * 784, dtype=np.uint32).astype(np.uint8).tobytes()
    data = bytes((0, 0, 8, magic)) + struct.pack(">III", images, 28, 28) + pixels
    (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(data[:cut]))
    head = bytes((0, 0, 8, 1)) + struct.pack(">I", labels)
    (root / "train-labels-idx1-ubyte").write_bytes(head + bytes(n % 10 for n in range(labels)))
    return root


def shards_of(root: Path, *tars: list[tuple[str, dict[str, bytes]]]) -> Path:
    root.mkdir()
    for number, samples in enumerate(tars):
        (root / f"{number}.tar").write_bytes(write_tar(samples)[0])
    return root


def svg_set(file: Path, colour: str, names: list[str], **changes: Any) -> Path:
    """Write a set of circles of one colour."""
    content = {
        "prefix": file.stem,
        "info": {
            "name": file.stem.title(),
            "author": {"name": "A. Painter"},
            "license": {"title": "MIT", "url": "https://example.org/licence"},
            "palette": colour != "currentColor",
        },
        "icons": {name: {"body": CIRCLE.format(colour)} for name in names},
        "aliases": {"turned": {"parent": names[0] if names else "", "hFlip": True}},
        "width": 32,
        "height": 32,
        **changes,
    }
    file.write_text(json.dumps(content))
    return file


def png(image: Image.Image, tmp_path: Path) -> bytes:
    image.save(tmp_path / "one.png")
    return (tmp_path / "one.png").read_bytes()


def read_all(place: Path) -> tuple[Index, dict[str, Sample]]:
    data = open_data(str(place))
    shards = [open_shard(data.read(n), shard, data.where(n)) for n, shard in enumerate(data.index.shards)]
    return data.index, dict(sample for samples in shards for sample in samples)


def bytes_of(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in place.iterdir()}


def prepare(*arguments: object) -> int:
    return main([*map(str, arguments), "--workers", "1"])
