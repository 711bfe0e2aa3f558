"""A dual encoder of pictures and sentences: it tells whether a picture shows what a sentence says.

Both encoders are frozen; a linear layer after each maps to unit vectors of one space, trained with the symmetric
cross-entropy of CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3) on the pairs that a run trains on. So few
weights are fitted that some thousand pairs suffice, and held-out pairs say how far it can be trusted.

It sees pictures, real and generated ones, at a quarter of their size: features of an ImageNet classifier follow the
texture of a generator more than what it shows. On the Fluent emoji real pictures are then found in 39% of cases, not
in 44%, and those of a generator after 80,000 images in 11%, not in 1%.

Shapes: B pictures, D features of a picture, N numbers of an embedding, P of the common space, M sentences.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.models.extractors import Extractor, read_file

SPACE, DROPOUT, STEPS, BATCH, RATE, DECAY = 128, 0.5, 200, 512, 1e-3, 0.1
"""P; share of inputs dropped out, steps, pairs a step, learning rate and weight decay (AdamW) of training."""
COARSE = 4
"""Pixels a side that are averaged before the picture is seen."""
HOTTEST = 50.0
"""Greatest inverse temperature."""
AMONG = 100
"""Sentences of which the right one is to be picked."""
FACTS = {"extractor", "extractor_sha256", "encoder_sha256", "pairs", "held_out", "accuracy"}
"""Of a dual encoder, in its file."""
LEAST = 20
"""Fewest pairs to train on."""


def seen_by_matcher(images: Tensor, extractor: Extractor) -> Tensor:
    """Return the features [B, D] of images [B, C, H, W] in [-1, 1], seen at a quarter of their size."""
    height, width = images.shape[2:]
    coarse = F.adaptive_avg_pool2d(images, (max(height // COARSE, 1), max(width // COARSE, 1)))
    coarse = F.interpolate(coarse, (height, width), mode="bilinear")
    return extractor(to_uint8(coarse)).to(images.device)


class Towers(nn.Module):
    """Linear layers after the frozen encoders: features [B, D] and embeddings [M, N] -> unit vectors of P numbers."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: int, numbers: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(features, SPACE), nn.Linear(numbers, SPACE)
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def of_images(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """Return the vectors of pictures, [B, P]."""
        return F.normalize(self.image(F.dropout((features - self.shift) * self.scale, dropout)))

    def of_texts(self, embeddings: Tensor, dropout: float = 0.0) -> Tensor:
        """Return the vectors of sentences, [M, P]."""
        return F.normalize(self.text(F.dropout(embeddings, dropout)))


@dataclass(frozen=True)
class Matcher:
    """A trained dual encoder.

    Attributes:
        towers: its layers.
        facts: of its frozen encoders, its training pairs and its accuracy, as JSON.
        sha256: of its file.
    """

    towers: Towers
    facts: Mapping[str, Any]
    sha256: str

    def hits(self, features: Tensor, texts: Tensor, of: Tensor) -> Tensor:
        """Return for each picture whether its sentence is the nearest among 100, bool [B].

        The others are the 99 sentences after it; all, if there are fewer.

        Args:
            features: features of the pictures, [B, D].
            texts: vectors of all sentences, [M, P].
            of: numbers of their sentences, int64 [B].
        """
        others = torch.arange(1, min(AMONG, len(texts)), device=of.device)
        likeness = self.towers.of_images(features) @ texts.T
        own, rest = likeness.gather(1, of[:, None]), likeness.gather(1, (of[:, None] + others) % len(texts))
        return (own >= rest).all(1)


def trained_towers(features: Tensor, embeddings: Tensor, seed: int) -> Towers:
    """Train on pairs.

    Args:
        features: of the pictures, [M, D].
        embeddings: of their captions, [M, captions, N], NaN beyond those of a picture; one is drawn each time.
        seed: seed of weights and draws.
    """
    captions = embeddings[:, :, 0].isfinite().sum(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = Towers(features.shape[1], embeddings.shape[2])
        towers.shift.copy_(features.mean(0))
        towers.scale.copy_(1 / (features.std(0) + 1e-3))
        temperature = nn.Parameter(torch.tensor(2.0))
        optimizer = torch.optim.AdamW([*towers.parameters(), temperature], RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            chosen = torch.randperm(len(features))[:BATCH]
            drawn = (torch.rand(len(chosen)) * captions[chosen]).long().minimum(captions[chosen] - 1)
            images = towers.of_images(features[chosen], DROPOUT)
            texts = towers.of_texts(embeddings[chosen, drawn], DROPOUT)
            logits = images @ texts.T * temperature.exp().clamp(max=HOTTEST)
            right = torch.arange(len(chosen))
            loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return towers.eval().requires_grad_(False)


def to_file(towers: Towers, facts: Mapping[str, Any]) -> bytes:
    """Return the file of a dual encoder: safetensors, with the facts in its metadata."""
    data: bytes = save(towers.state_dict(), {"matcher": json.dumps(facts, sort_keys=True)})
    return data


def open_matcher(uri: str, key: str) -> Matcher:
    """Open the file of a dual encoder.

    Args:
        uri: its path or URI, optionally with #sha256=...
        key: key of the config, or option, that names it, for messages.

    Raises:
        UserError: it is not there, or is none.
    """
    data = read_file(uri, key)
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        facts = dict(json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["matcher"]))
        if missing := FACTS - facts.keys():
            raise ValueError(f"without {min(missing)}")
        towers = Towers(tensors["image.weight"].shape[1], tensors["text.weight"].shape[1])
        towers.load_state_dict(tensors)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}: {uri} is no dual encoder ({reason}); train one with ganrun matcher") from error
    return Matcher(towers.eval().requires_grad_(False), facts, hashlib.sha256(data).hexdigest())
