"""Images for sentences of a user, and for what lies between two of them."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganrun.data.index import EmbeddingField
from ganrun.errors import UserError, escaped
from ganrun.evaluation.captioned import captioned_png
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.games.conditions import UserInput
from ganrun.inference.sampling import SMALLEST, STEPS, Sampler, write_file, write_image
from ganrun.models.given import Given
from ganrun.models.text_encoder import TextEncoder, open_text_encoder
from ganrun.rng import KeyedNoise

NAMED = 40
"""Most letters of a sentence in the name of a file."""


def run_encoder(embedding: EmbeddingField | None, option: str) -> TextEncoder:
    """Return the encoder of a run's embeddings.

    Args:
        embedding: what the run recorded of it.
        option: option that needs it, for messages.

    Raises:
        UserError: it is not there, or is another one.
    """
    if embedding is None:
        raise UserError(f"{option}: the run has not recorded the encoder of its embeddings; train it with this ganrun")
    encoder = open_text_encoder(embedding.encoder, option)
    if encoder.sha256 != embedding.sha256:
        raise UserError(
            f"{option}: the encoder {encoder.name} here has sha256 {encoder.sha256[:12]}, but the run's embeddings are "
            f"by one with {embedding.sha256[:12]}; install that one, or prepare the data again and train anew"
        )
    return encoder


class Illustrator:
    """EMA generator of a checkpoint, for sentences of a user.

    Args:
        sampler: the checkpoint.
        seed: seed of the noise. Image i of every sentence has the same noise.

    Raises:
        UserError: the run takes no sentences, or its encoder is not there.
    """

    def __init__(self, sampler: Sampler, seed: int) -> None:
        self.game, self.seed = sampler.game, seed
        if self.game.condition.text is None:
            self.game.condition.from_user(UserInput("--text"))  # It says what it takes instead.
            raise UserError("--text: this run takes no sentences; leave it out")
        self.encoder = run_encoder(sampler.embedding, "--text")
        parameter = next(next(iter(self.game.networks.values())).parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def usable(self, sentences: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the sentences that can be drawn, and a line for each that cannot.

        Raises:
            UserError: none can.
        """
        reasons = [(sentence, self.encoder.fault(sentence)) for sentence in sentences]
        faults = [escaped(f"--text {text[:NAMED]!r}: {reason}") for text, reason in reasons if reason]
        if len(faults) == len(reasons):
            raise UserError(faults[0])
        return [text for text, reason in reasons if not reason], faults

    def given(self, sentences: Sequence[str]) -> list[Given]:
        """Return the condition of each sentence, with B = 1: its embedding, in the precision of prepared data."""
        rows = self.encoder.encode(sentences).astype(np.float16).astype(np.float32)
        placed = [torch.from_numpy(row).to(self.device, self.dtype) for row in rows]
        return [
            self.game.condition.from_user(UserInput("--text", text=sentence, embedding=embedding))
            for sentence, embedding in zip(sentences, placed, strict=True)
        ]

    @torch.inference_mode()
    def image(self, given: Given, number: int) -> Tensor:
        """Return image `number` for a condition, [C, H, W] in [-1, 1]."""
        noise = KeyedNoise(self.seed, 0, 0, number, self.device, self.dtype)
        return self.game.sample(self.game.networks, 1, noise.under("input"), given)[0]

    def write_grid(self, sentences: Sequence[str], count: int, out: Path) -> None:
        """Write a PNG with a row of `count` images for each sentence, which is written below."""
        images = [self.image(given, number) for given in self.given(sentences) for number in range(count)]
        write_file(out, captioned_png(torch.stack(images), sentences, 1, smallest=SMALLEST))

    def write_singles(self, sentences: Sequence[str], count: int, out: Path) -> None:
        """Write a PNG for each image: `out`/000-red-apple.png, or 000-red-apple-0.png, ... if they are several."""
        for place, (sentence, given) in enumerate(zip(sentences, self.given(sentences), strict=True)):
            words = re.sub(r"\W+", "-", sentence.lower()).strip("-")[:NAMED]
            for number in range(count):
                name = f"{place:03d}-{words}{f'-{number}' if count > 1 else ''}.png"
                write_image(out / name, to_uint8(self.image(given, number)))

    def write_interpolations(self, sentences: Sequence[str], count: int, out: Path) -> None:
        """Write a PNG with `count` rows of 8 images from each sentence to the next, along a straight line.

        Raises:
            UserError: there is one sentence only.
        """
        if len(sentences) < 2:
            raise UserError("--interpolate: needs two sentences; give --text twice")
        told, rows, captions = self.given(sentences), [], []
        for place in range(len(sentences) - 1):
            begin, end = told[place]["text"], told[place + 1]["text"]
            for number in range(count):
                rows += [self.image({"text": begin.lerp(end, step / (STEPS - 1))}, number) for step in range(STEPS)]
                captions.append(f"{sentences[place]} … {sentences[place + 1]}")
        write_file(out, captioned_png(torch.stack(rows), captions, 1, smallest=SMALLEST))
