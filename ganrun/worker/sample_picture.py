"""Picture of samples at a tick, from the same latents at every tick, so that they can be compared."""

from typing import NamedTuple

import torch

from ganrun.data.index import Index
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.evaluation.pictures import beside, columns_of, small_png, to_picture
from ganrun.rng import KeyedNoise
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.training.state import TrainingState


class SamplePicture(NamedTuple):
    """Samples of the EMA networks as PNG, a class in each column, or condition, sample and truth side by side."""

    png: bytes
    pushed: bytes
    """The same, or a smaller one if it exceeds what a sidecar accepts."""
    diversity: float
    """Mean over pixels of the samples' standard deviation over latents, in [0, 1]."""


def draw_samples(
    state: TrainingState, count: int, index: Index, attempt: int, pairs: PairedSamples | None = None
) -> SamplePicture | None:
    """Draw the picture; None for points whose modes are unknown.

    Args:
        state: between two rounds.
        count: samples.
        index: of the run's data.
        attempt: written into the file's text, with the images shown.
        pairs: samples that the conditions are made of; None for labels and unconditional games.
    """
    if pairs is not None:
        count = min(count, pairs.samples)
    generated = GeneratedImages(state.game, state.ema_networks, state.seed, pairs=pairs)
    condition, noise = state.game.condition, KeyedNoise(state.seed, 0, 0, 0, state.device, state.dtype)
    with torch.inference_mode():
        given = generated.given(0, count)
        images = state.game.sample(state.ema_networks, count, noise.under("samples"), given)
        shown, pictures = beside(condition.show(given), images, generated.truth(0, count))
    facts = {"attempt": str(attempt), "images": str(state.images)}
    columns = columns_of(count, pictures) if pictures > 1 else condition.classes or None
    png = to_picture(shown, index, columns, facts)
    if png is None:
        return None
    diversity = float(images.double().std(0, correction=0).mean())
    return SamplePicture(png, png if len(png) <= PART_BYTES else small_png(shown), diversity)
