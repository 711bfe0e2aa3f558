"""A small set of clips, `past_3` to `past_1`, `image`, `next_2` and `next_3`: a square moves steadily."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.data.index import Index, PictureField
from tests.conftest import SIZES, png, write_shards

NAMES = ("past_3", "past_2", "past_1", "image", "next_2", "next_3")
CLIPS = {
    "data": {"image_size": 32, "channels": 1, "fields": dict.fromkeys(NAMES, "image")},
    "model": {"name": "pix2pix", "width": 2},
    "objective": {
        "condition": "past_frames",
        "past_frames": {"frames": 3, "horizons": 3},
        "reconstruction": {"l1": 10.0, "gradient_difference": 10.0},
    },
}
"""Sections that replace those of the `values` of a small run."""


def write_clips(folder: Path, sizes: tuple[int, ...] = SIZES, size: int = 32) -> Path:
    """Write shards of clips. The square has a quarter of the side, and moves up to 2 pixels a frame along each axis."""
    random = np.random.default_rng(0)

    def sample(number: int) -> dict[str, bytes]:
        shade, (down, across) = random.integers(100, 256), random.integers(-2, 3, 2)
        start = random.integers(10, size - 10 - size // 4, 2)
        members = {}
        for time, name in enumerate(NAMES):
            frame = np.zeros((size, size), np.uint8)
            top, left = start + np.array((down, across)) * (time - 2)
            frame[top : top + size // 4, left : left + size // 4] = shade
            members["png" if name == "image" else f"{name}.png"] = png(frame)
        return members

    shards = write_shards(folder, sizes, sample)
    pictures = {name: PictureField(size, 1) for name in NAMES if name != "image"}
    (folder / "index.json").write_bytes(Index(size, 1, (), shards, {}, pictures).to_json())
    return folder


def of_clips(values: dict[str, dict[str, Any]], folder: Path, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the config values of a run that predicts the next frame; `sections` are laid over them."""
    values = copy.deepcopy(values) | {"model": {}}
    values["data"]["shards"] = str(folder)
    for layer in (CLIPS, sections):
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | copy.deepcopy(keys)
    return values
