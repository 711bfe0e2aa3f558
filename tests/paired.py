"""A small set of pairs: `image` in colour and `lines`, grey, of which the image is a function; and runs over it."""

import copy
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from ganrun.data.index import Index, Shard

SIZES = (30, 25, 35, 20, 31)
PAIRED = {
    "data": {
        "image_size": 32,
        "channels": 3,
        "fields": {"image": "image", "lines": {"kind": "image", "extension": "lines.png", "channels": 1}},
    },
    "model": {"name": "pix2pix", "width": 2},
    "objective": {
        "condition": "source",
        "source": {"field": "lines"},
        "reconstruction": {"l1": 100.0},
    },
}
"""Sections that replace those of the `values` of a small run."""


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_pairs(
    folder: Path, sizes: tuple[int, ...] = SIZES, size: int = 32, image: str = "png", cell: int = 8
) -> Path:
    """Write shards with cells of random brightness as lines, and of a hue by that brightness as image."""
    random, shards, number = np.random.default_rng(0), [], 0
    folder.mkdir(parents=True)
    for shard, samples in enumerate(sizes):
        stream = io.BytesIO()
        with webdataset.TarWriter(stream, mtime=0) as tar:
            for _ in range(samples):
                lines = random.integers(0, 2, (size // cell, size // cell), np.uint8) * 255
                lines = lines.repeat(cell, 0).repeat(cell, 1)
                colour = np.stack([lines, 255 - lines, np.full_like(lines, 128)], axis=2)
                tar.write({"__key__": f"{number:06d}", image: png(colour), "lines.png": png(lines)})
                number += 1
        data = stream.getvalue()
        (folder / f"{shard:06d}.tar").write_bytes(data)
        shards.append(Shard(f"{shard:06d}.tar", samples, len(data), hashlib.sha256(data).hexdigest()))
    (folder / "index.json").write_bytes(Index(size, 3, (), tuple(shards)).to_json())
    return folder


def paired(values: dict[str, dict[str, Any]], folder: Path, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the config values of a run that translates `lines` to `image`; `sections` are laid over them."""
    values = copy.deepcopy(values) | {"model": {}}
    values["data"]["shards"] = str(folder)
    for layer in (PAIRED, sections):
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | copy.deepcopy(keys)
    return values
