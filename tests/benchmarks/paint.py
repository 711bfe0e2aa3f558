"""What an edit of `ganrun paint` costs, and what an encoder's start is worth:

    python -m tests.benchmarks.paint RUN [--encoder RUN] [--data URI]

An edit is a stroke over an image of the run, in a colour of another one. It has as many steps as `SECONDS` of one core
allow, by the CPU seconds of a step: a machine may be shared. With `--encoder`, pictures that the run holds out, or
those of `--data`, are projected with and without its start, by equally many steps, which take equal time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganrun.data.index import open_data
from ganrun.data.scored import open_scored
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.real_images import RealImages
from ganrun.inference.paint.edits import Drawing, Edit, Point
from ganrun.inference.paint.painters import LatentPainter, open_painter
from ganrun.inference.projection import Budget, Search, encoder_of
from ganrun.inference.projection_terms import Target, Weights
from ganrun.inference.sampling import Sampler

EDITS, PICTURES = 12, 20
SECONDS, SHARE = 1.0, 0.8
"""CPU seconds of an edit, and their share that steps are planned for, as `ganrun paint` plans them."""
FEW, MORE = 5, 25
"""Steps of two searches, whose difference is the time of a step."""
STEPS = (10, 30, 100)
"""Steps by which pictures are projected."""
LEFT, RIGHT, WIDTH = 0.2, 0.8, 30 / 512
"""Ends and width of a stroke, as shares of the side; the page's brush is that wide."""
Encoder = Callable[[Tensor], Tensor]


class Measured(NamedTuple):
    """An edit: its CPU seconds and steps, and the share of the stroke's mean absolute error that it left."""

    seconds: float
    steps: int
    left: float


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.paint")
    parser.add_argument("run", help="a run whose generator has a z")
    parser.add_argument("--encoder", help="a run of the game inversion, for that run")
    parser.add_argument("--data", help="shards of the pictures (default: those that the run holds out)")
    options = parser.parse_args(arguments)
    sampler = Sampler(options.run)
    painter = open_painter(sampler)
    assert isinstance(painter, LatentPainter)
    torch.set_num_threads(1)
    print(describe([measure(painter, number) for number in range(EDITS)]))
    if options.encoder:
        encoder, pictures = encoder_of(options.encoder, painter.projector), real_pictures(sampler, options.data)
        for steps in STEPS:
            errors = [project(painter, pictures, each, steps) for each in (None, encoder)]
            print(f"{steps:>4} steps of 8 candidates: error {errors[0]:.4f}, with the encoder's start {errors[1]:.4f}")


def measure(painter: LatentPainter, number: int) -> Measured:
    """Draw a stroke over an image."""
    latents = painter.projector.space.draw(2, number)
    labels = torch.tensor([number, number + 1]) % painter.projector.classes if painter.projector.classes else None
    below, other = painter.projector.images(latents, labels)
    drawing = stroke(other, number)
    start = Point(latent=latents[0].tolist(), label=None if labels is None else int(labels[0]))

    def search(steps: int) -> Measured:
        # With `made` an edit has no limit of time.
        edit = Edit(drawing="", start=start, seed=number, steps=steps, made=steps, candidates=6)
        begun = time.process_time()
        found = painter.answer(edit, drawing, lambda share, image: True)
        return Measured(time.process_time() - begun, steps, found["candidates"][0]["error"] / error(below, drawing))

    few, more = search(FEW).seconds, search(MORE).seconds
    step = (more - few) / (MORE - FEW)
    return search(max(int((SHARE * SECONDS - (few - FEW * step)) / step), 1))


def stroke(image: Tensor, number: int) -> Drawing:
    """Return a line across, at a height that depends on the number, in the colour of an image [C, S, S] there."""
    pixels = to_uint8(image[None])[0].permute(1, 2, 0).numpy()
    size = len(pixels)
    top, drawn = size * (4 + number % 8) // 16, np.zeros((size, size), np.float32)
    drawn[top : top + max(1, round(WIDTH * size)), int(LEFT * size) : int(RIGHT * size)] = 1
    return np.full_like(pixels, pixels[top, size // 2]), drawn


def error(image: Tensor, drawing: Drawing) -> float:
    """Return the mean absolute difference of an image [C, S, S] in [-1, 1] from a drawing, where it is drawn."""
    colours = torch.from_numpy(drawing[0]).permute(2, 0, 1) / 127.5 - 1
    return float((image - colours).abs()[:, torch.from_numpy(drawing[1]) > 0].mean())


def describe(edits: list[Measured]) -> str:
    """Return medians and ranges in words."""
    seconds, steps, left = ([each[at] for each in edits] for at in range(3))
    return (
        f"{len(edits)} edits of {statistics.median(seconds):.2f} CPU s ({min(seconds):.2f} to {max(seconds):.2f}) and "
        f"{statistics.median(steps):.0f} steps ({min(steps)} to {max(steps)})\n"
        f"left {statistics.median(left):.0%} of the stroke's error ({min(left):.0%} to {max(left):.0%}); halved in "
        f"{sum(each < 0.5 for each in left)}"
    )


def real_pictures(sampler: Sampler, uri: str | None) -> Tensor:
    """Return pictures of the data, [PICTURES, C, S, S] in [-1, 1]."""
    config = sampler.config
    data = open_data(uri or config.data.shards, crop=config.data.crop)
    scored = data if uri else open_scored(data, config.evaluate, PICTURES)
    reals = RealImages(scored, PICTURES, config.data.fields, target=config.objective.target)
    return reals.images(0, PICTURES) / 127.5 - 1


def project(painter: LatentPainter, pictures: Tensor, encoder: Encoder | None, steps: int) -> float:
    """Return the mean error of pictures that are projected, with an encoder's start or without."""
    errors = []
    for seed, picture in enumerate(pictures):
        guesses = [encoder(picture)] if encoder else []
        target = Target(picture, torch.ones_like(picture[:1]))
        search = Search(target, Weights(), seed, guesses=guesses)
        found = painter.projector.project(search, Budget(steps, seconds=3_600))
        errors.append(float(found.errors[0]))
    return statistics.mean(errors)


if __name__ == "__main__":
    main()
