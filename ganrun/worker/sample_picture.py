"""Picture of samples at a tick, from the same latents at every tick, so that they can be compared."""

from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.data.index import Index
from ganrun.evaluation.pictures import small_png, to_picture
from ganrun.rng import KeyedNoise
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.training.state import TrainingState


class SamplePicture(NamedTuple):
    """Samples of the EMA networks as PNG, a class in each column."""

    png: bytes
    pushed: bytes
    """The same, or a smaller one if it exceeds what a sidecar accepts."""
    diversity: float
    """Mean over pixels of the samples' standard deviation over latents, in [0, 1]."""


def draw_samples(state: TrainingState, count: int, index: Index, attempt: int) -> SamplePicture | None:
    """Draw the picture; None for points whose modes are unknown.

    Args:
        state: between two rounds.
        count: samples.
        index: of the run's data.
        attempt: written into the file's text, with the images shown.
    """
    images = _samples(state, count)
    facts = {"attempt": str(attempt), "images": str(state.images)}
    png = to_picture(images, index, state.game.classes or None, facts)
    if png is None:
        return None
    diversity = float(images.double().std(0, correction=0).mean())
    return SamplePicture(png, png if len(png) <= PART_BYTES else small_png(images), diversity)


def _samples(state: TrainingState, count: int) -> Tensor:
    """Return samples [B, C, H, W] in [-1, 1]."""
    game = state.game
    noise = KeyedNoise(state.seed, 0, 0, 0, state.device, state.dtype)
    with torch.inference_mode():
        z = game.latent.draw(noise, count, "samples/z")
        return game.sample(state.ema_networks, z, game.labels(0, count, state.device))
