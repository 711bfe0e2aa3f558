"""Picture of samples at a tick, from the same latents at every tick, so that they can be compared."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganrun.data.index import Index
from ganrun.evaluation.captioned import captioned_png
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.pictures import beside, columns_of, small_png, to_picture
from ganrun.evaluation.table_pictures import filled_picture
from ganrun.rng import KeyedNoise
from ganrun.telemetry.messages import SamplePicture, SamplesDrawn
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.worker.channel import Channel
from ganrun.worker.line_writer import LineWriter


def draw_samples(
    generated: GeneratedImages, count: int, index: Index, attempt: int, images: int, target: str
) -> SamplePicture | None:
    """Draw the picture; None for points whose modes are unknown.

    Args:
        generated: the game and its EMA networks, with the samples that conditions are made of.
        count: samples.
        index: of the run's data.
        attempt, images: of the run, written into the file's text.
        target: the generated field.
    """
    game, networks, device = generated.game, generated.networks, generated.device
    if generated.pairs is not None:
        count = min(count, generated.pairs.samples)
    condition, noise = game.condition, KeyedNoise(generated.seed, 0, 0, 0, device, generated.noise(0, 1).dtype)
    with torch.inference_mode():
        given = generated.given(0, count)
        drawn, truth = game.sample(networks, count, noise.under("samples"), given), generated.truth(0, count)
        shown, pictures = beside(condition.show(given), drawn, truth, generated.later(0, drawn))
    facts = {"attempt": str(attempt), "images": str(images)}
    columns = columns_of(count, pictures) if pictures > 1 else condition.classes or None
    captions = generated.captions(0, count)
    if captions:
        png: bytes | None = captioned_png(shown, captions, columns_of(count, pictures) // pictures, facts)
    elif truth is not None and index.image_size == 1 and "mask" in given:
        png = filled_picture(drawn, truth, given["mask"], facts)
    else:
        png = to_picture(shown, index, columns, facts, _density(generated, target))
    if png is None:
        return None
    # Mean over pixels of the standard deviation over latents, in [0, 1].
    diversity = float(drawn.double().std(0, correction=0).mean())
    pushed = png if len(png) <= PART_BYTES else small_png(shown)
    return SamplePicture(png, SamplesDrawn(images, pushed, diversity))


def show(drawn: SamplePicture | None, line_writer: LineWriter | None, channel: Channel) -> None:
    """Write a picture to the run's folder and send it to the driver, on rank 0, which has a writer."""
    if drawn is not None and line_writer is not None:
        line_writer.picture(f"samples/{drawn.message.images:012d}.png", drawn.png)
        channel.send(drawn.message)


def _density(generated: GeneratedImages, target: str) -> Callable[[Tensor], Tensor] | None:
    """Return the density of a game at points [B, C, 1, 1], to be drawn; None if it has none."""
    log_prob, noise = generated.game.log_prob, generated.noise(0, 1)
    if log_prob is None:
        return None

    def density(points: Tensor) -> Tensor:
        with torch.inference_mode():
            placed = points.to(generated.device, noise.dtype)
            return log_prob(generated.networks, {target: placed}, noise).exp()

    return density
