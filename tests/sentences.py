"""A small set of pictures with captions, of which the picture is a function, a sentence encoder, and runs over them."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ganrun.data.captions import write_embeddings
from ganrun.data.index import EmbeddingField, Index
from tests.conftest import SIZES, png, write_shards

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
THINGS = ("ball", "box", "hat")
SIZE = 6
"""Numbers of an embedding."""
TEXT: dict[str, dict[str, Any]] = {
    "data": {
        "image_size": 16,
        "channels": 3,
        "fields": {"image": "image", "text": "text", "embedding": "embedding"},
    },
    "objective": {"condition": "text", "text": {"size": SIZE, "projected": 4}},
}
"""Sections that replace those of the `values` of a small run."""


class Letters(nn.Module):
    """A sentence encoder: sines of the sums of the letters' numbers."""

    def forward(self, sentences: list[str]) -> torch.Tensor:
        rows: list[torch.Tensor] = []
        for sentence in sentences:
            total = 0.0
            for place in range(len(sentence)):
                total += float(ord(sentence[place])) * (place + 1)
            rows.append(torch.sin(total * torch.arange(1, 7)))
        return torch.stack(rows)


def write_encoder(path: Path) -> Path:
    """Write the encoder as a TorchScript program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Letters()), path)
    return path


def caption(number: int) -> str:
    """Return the first caption of a sample."""
    return f"{list(COLOURS)[number % 4]} {THINGS[number % 3]}"


def captions(number: int) -> list[str]:
    """Return the captions of a sample: one or two."""
    return [caption(number), f"a {caption(number)} on white"][: 1 + number % 2]


def write_captioned(
    folder: Path, sizes: tuple[int, ...] = SIZES, encoder: str = "letters.pt", sha256: str = "0" * 64, size: int = 16
) -> Path:
    """Write shards of squares in the colour that their captions name, with embedded captions."""
    letters = Letters()

    def sample(number: int) -> dict[str, bytes]:
        pixels, side = np.full((size, size, 3), 255, np.uint8), size // 4
        pixels[side : 3 * side, side : 3 * side] = list(COLOURS.values())[number % 4]
        texts = captions(number)
        return {
            "png": png(pixels),
            "txt": "\n".join(texts).encode(),
            "text.npy": write_embeddings(letters(texts).numpy()),
        }

    embedding = EmbeddingField(encoder, sha256, SIZE, 2)
    index = Index(size, 3, (), write_shards(folder, sizes, sample), embedding=embedding)
    (folder / "index.json").write_bytes(index.to_json())
    return folder


def of_text(values: dict[str, dict[str, Any]], folder: Path, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the config values of a run that draws sentences; `sections` are laid over them."""
    values = copy.deepcopy(values)
    values["data"]["shards"] = str(folder)
    for layer in (TEXT, sections):
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | copy.deepcopy(keys)
    return values
