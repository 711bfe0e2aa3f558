"""Runs that answer drawings.

Nothing is kept between two edits: the page sends the latent that it edits, so people at once cannot mix, and an edit
alone can be done again.
"""

import base64
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import encode_png

from ganrun.config.validate_objective import PERCEPTUAL_PIXELS
from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.inference.paint.edits import Drawing, Edit, Point, Sample, Walk, Watch
from ganrun.inference.projection import Budget, Projector, Search, encoder_of, given_of, limit_threads, projector_of
from ganrun.inference.projection_terms import Start, Weights
from ganrun.inference.sampling import Sampler
from ganrun.inference.translation import Translator

FEWEST_STEPS, MOST_STEPS, OF_SECONDS = 20, 400, 0.8
"""Bounds on the steps of an edit; share of its time that they are planned for."""
SAMPLES = 8
"""Random images to begin with."""
TRIAL_STEPS = 4
"""Steps by which the time of a step is measured."""
AGAIN_SECONDS = 3_600.0
"""Most seconds of a trial, and of an edit that is done again: their steps are known."""


class LatentPainter:
    """Searches the latent whose image is nearest to a drawing.

    Args:
        run: name of the run.
        projector: of its checkpoint.
        guess: encoder of pictures [C, H, W] to latents [Z]; None: there is none.
    """

    def __init__(self, run: str, projector: Projector, guess: Callable[[Tensor], Tensor] | None = None) -> None:
        self.run, self.projector, self.guess = run, projector, guess
        self.channels, self.size, _ = projector.shape

    def about(self) -> dict[str, Any]:
        """Return kind, shape, number of classes, and which terms can be had."""
        return {
            "run": self.run,
            "kind": "latent",
            "size": self.size,
            "channels": self.channels,
            "classes": self.projector.classes,
            "realism": self.projector.logits is not None,
            "perceptual": self.size >= PERCEPTUAL_PIXELS,
        }

    def answer(self, edit: Edit, drawing: Drawing, watch: Watch) -> dict[str, Any]:
        """Return the candidates, the best first, the steps planned and made."""
        begun, search = time.monotonic(), self._search(edit, drawing)
        steps = edit.steps or self._planned(search, edit)
        seconds = AGAIN_SECONDS if edit.made is not None else edit.seconds - (time.monotonic() - begun)

        def watched(step: int, image: Callable[[], Tensor]) -> bool:
            return step != edit.made and watch(step / steps, lambda: encoded(image()))

        found = self.projector.project(search, Budget(steps, seconds, edit.candidates), watched)
        candidates = [
            self._record(found.latents, found.labels, at)
            | {"error": float(found.errors[at]), "image": encoded(found.images[at])}
            for at in range(len(found.latents))
        ]
        return {"candidates": candidates, "steps": steps, "made": found.steps}

    def sample(self, sample: Sample) -> dict[str, Any]:
        """Return random images to begin with, as candidates."""
        if sample.label is not None:
            self._check_label(sample.label)
        labels = self.projector.labels(SAMPLES, sample.label, sample.seed * SAMPLES)
        latents = self.projector.space.draw(SAMPLES, sample.seed, given_of(labels))
        images = self.projector.images(latents, labels)
        return {
            "candidates": [self._record(latents, labels, at) | {"image": encoded(images[at])} for at in range(SAMPLES)]
        }

    def walk(self, walk: Walk) -> dict[str, Any]:
        """Return images between two results, and their latents. Each has the class of the nearer end."""
        ends = [self._checked(walk.begin), self._checked(walk.end)]
        latents = self.projector.space.between(ends[0][0], ends[1][0], walk.steps)
        later = [2 * step >= walk.steps for step in range(walk.steps)]
        labels = None
        if self.projector.classes:
            labels = torch.tensor([(walk.end if after else walk.begin).label for after in later])
        images = self.projector.images(latents, labels)
        return {"images": [encoded(image) for image in images], "latents": latents.tolist()}

    def _record(self, latents: Tensor, labels: Tensor | None, at: int) -> dict[str, Any]:
        return latent_record(self.run, self.projector.space.name, latents, labels, at)

    def _search(self, edit: Edit, drawing: Drawing) -> Search:
        target, start, guesses = self.projector.target(*drawing), None, []
        if edit.start is not None:
            latent, labels = self._checked(edit.start)
            start = Start(latent, self.projector.images(latent[None], labels)[0])
        if self.guess is not None and (start is not None or bool(target.drawn.all())):
            below = target.colours if start is None else start.image
            guesses = [self.guess(target.drawn * target.colours + (1 - target.drawn) * below)]
        if edit.label is not None:
            self._check_label(edit.label)
        weights = Weights(edit.strokes, 0.0, edit.perceptual, edit.keep, edit.realism)
        return Search(target, weights, edit.seed, edit.label, start, guesses)

    def _planned(self, search: Search, edit: Edit) -> int:
        """Return the steps that the time of an edit allows, by the time that a few of them take now."""
        marks = [time.monotonic()]

        def watch(step: int, image: Callable[[], Tensor]) -> bool:
            marks.append(time.monotonic())
            return True

        self.projector.project(search, Budget(TRIAL_STEPS, AGAIN_SECONDS, edit.candidates), watch)
        begun, first, last = marks[0], marks[1], marks[-1]
        step = max(last - first, 1e-6) / (TRIAL_STEPS - 1)
        # What was done for this trial, and once more what comes before the first step.
        left = OF_SECONDS * edit.seconds - (time.monotonic() - begun) - (first - begun)
        return min(max(int(left / step), FEWEST_STEPS), MOST_STEPS)

    def _checked(self, point: Point) -> tuple[Tensor, Tensor | None]:
        """Return a latent [Z] and its label int64 [1] as tensors."""
        size = self.projector.space.size
        if len(point.latent) != size:
            raise UserError(f"latent: {len(point.latent)} numbers, but this run takes {size}; give one of this run")
        if (point.label is None) != (self.projector.classes == 0):
            raise UserError(f"label: {point.label}, but this run has {self.projector.classes} classes")
        latent = torch.tensor(point.latent).to(self.projector.space.dtype)
        if point.label is None:
            return latent, None
        self._check_label(point.label)
        return latent, torch.tensor([point.label])

    def _check_label(self, label: int) -> None:
        if label >= self.projector.classes:
            allowed = f"0 to {self.projector.classes - 1}" if self.projector.classes else "none"
            raise UserError(f"label: {label} is not allowed; this run has {allowed}")


class TranslationPainter:
    """Translates a drawing as one draws, for a run whose condition is a picture.

    Args:
        run: name of the run.
        translator: of its checkpoint.
        fills: True if the run fills holes: what is transparent is the hole.
    """

    def __init__(self, run: str, translator: Translator, fills: bool) -> None:
        self.run, self.translator, self.fills = run, translator, fills
        self.size, self.channels = translator.size, 3

    def about(self) -> dict[str, Any]:
        """Return kind and shape."""
        kind = "fill" if self.fills else "translate"
        return {"run": self.run, "kind": kind, "size": self.size, "channels": self.channels, "classes": 0}

    def answer(self, edit: Edit, drawing: Drawing, watch: Watch) -> dict[str, Any]:
        """Return the image that belongs to the drawing, on white, as the only candidate."""
        colours, drawn = drawing
        mask = None
        if self.fills:
            mask = drawn < 0.5
            if not mask.any() or mask.all():
                raise UserError("drawing: bring a picture, and erase in it what is to be filled")
        else:
            colours = (drawn[..., None] * colours + (1 - drawn[..., None]) * 255).round().astype(np.uint8)
        (image,) = self.translator.images("drawing", colours, 1, mask)
        return {"candidates": [{"run": self.run, "image": encoded(image)}], "steps": 1, "made": 1}


def open_painter(sampler: Sampler, encoder: str | None = None) -> LatentPainter | TranslationPainter:
    """Return the painter of a checkpoint: it translates if its condition is a picture, else it searches latents.

    It searches w where the generator has styles, else z.

    Args:
        sampler: the checkpoint.
        encoder: run of the game `inversion`, for a start, whose z are searched then; None: random starts.

    Raises:
        UserError: the run cannot be painted with, or the encoder is for another.
    """
    condition, run = sampler.game.condition, sampler.config.run.name
    if condition.frames or sampler.of_points:
        raise UserError(f"{run}: this run makes {'points' if sampler.of_points else 'films'}; give a run of pictures")
    if condition.pictures and encoder:
        raise UserError(
            f"--encoder {encoder}: {run} translates pictures and has no latents to start with; leave it out"
        )
    if condition.pictures:
        return TranslationPainter(run, Translator(sampler, seed=0, resize=False), fills="mask" in condition.pictures)
    projector = projector_of(sampler, "z" if encoder else None)
    limit_threads(projector.shape[1])
    return LatentPainter(run, projector, encoder_of(encoder, projector) if encoder else None)


def encoded(image: Tensor) -> str:
    """Return an image [C, H, W] in [-1, 1] as a PNG in base64."""
    return base64.b64encode(bytes(encode_png(to_uint8(image[None])[0]).numpy())).decode()


def latent_record(run: str, space: str, latents: Tensor, labels: Tensor | None, at: int) -> dict[str, Any]:
    """Return a latent as files of latents have it: run, space, label and numbers."""
    label = None if labels is None else int(labels[at])
    return {"run": run, "space": space, "label": label, "latent": latents[at].tolist()}
