"""A small set of pairs: `image` in colour and `lines`, grey, of which the image is a function; and runs over it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.data.index import Index
from tests.conftest import SIZES, png, write_shards

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


def write_pairs(
    folder: Path, sizes: tuple[int, ...] = SIZES, size: int = 32, image: str = "png", cell: int = 8
) -> Path:
    """Write shards with cells of random brightness as lines, and of a hue by that brightness as image."""
    random = np.random.default_rng(0)

    def sample(number: int) -> dict[str, bytes]:
        lines = random.integers(0, 2, (size // cell, size // cell), np.uint8) * 255
        lines = lines.repeat(cell, 0).repeat(cell, 1)
        colour = np.stack([lines, 255 - lines, np.full_like(lines, 128)], axis=2)
        return {image: png(colour), "lines.png": png(lines)}

    shards = write_shards(folder, sizes, sample)
    (folder / "index.json").write_bytes(Index(size, 3, (), shards).to_json())
    return folder


def paired(values: dict[str, dict[str, Any]], folder: Path, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the config values of a run that translates `lines` to `image`; `sections` are laid over them."""
    values = copy.deepcopy(values) | {"model": {}}
    values["data"]["shards"] = str(folder)
    for layer in (PAIRED, sections):
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | copy.deepcopy(keys)
    return values
