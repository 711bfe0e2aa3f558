"""Projection: the latent whose image is nearest to a picture, or to strokes.

Zhu et al. 2016 (arXiv:1609.03552), eq. 3 and 5: gradient descent on the latent over the distance where something was
drawn, the closeness to the picture before, and the discriminator's opinion. Several starts are searched in one batch,
and each is kept as a candidate.

Notation: x = G(w, c) [B, C, H, W], t the target and m its weights, x0 and w0 the image and the latent before the edit.
Everything is a mean per number, in [-1, 1].
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganrun.errors import UserError
from ganrun.games.calls import judge
from ganrun.inference.latent_spaces import LatentSpace, SpaceName, space_of
from ganrun.inference.projection_terms import Start, Target, Terms, Weights
from ganrun.inference.sampling import Sampler
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

DRAWN = 64
"""Random latents of which the nearest to the target are starts."""
RATE, BETAS = 0.3, (0.9, 0.9)
"""Learning rate of Adam at the first step, of latents with a standard deviation of 1; it falls to 0 by a cosine."""

SMALL = 64
"""Pixels a side up to which one thread is used."""


@dataclass(frozen=True)
class Candidates:
    """Latents found, the best first.

    Attributes:
        latents: [N, Z].
        images: [N, C, H, W] in [-1, 1].
        labels: int64 [N]; None without classes.
        losses: [N], what was minimised.
        errors: [N], E m |x - t| / E m of these images.
        first_images: [N, C, H, W], those that they began with.
        first_errors: [N], their errors.
        steps: steps made.
    """

    latents: Tensor
    images: Tensor
    labels: Tensor | None
    losses: Tensor
    errors: Tensor
    first_images: Tensor
    first_errors: Tensor
    steps: int


@dataclass(frozen=True)
class Search:
    """What to search.

    Attributes:
        target: what images are to look like.
        weights: of the terms.
        seed: of the random latents.
        label: class of all images; None: each random latent has one of the classes in turn.
        start: what was there before an edit; None: nothing.
        guesses: latents [Z] to begin with too, such as that of an encoder.
    """

    target: Target
    weights: Weights
    seed: int = 0
    label: int | None = None
    start: Start | None = None
    guesses: Sequence[Tensor] = ()


Watch = Callable[[int, Callable[[], Tensor]], bool]
"""Told the steps made, and a function that returns the best image so far, [C, H, W]; returns False to stop here."""


@dataclass(frozen=True)
class Budget:
    """Bounds of a search.

    Attributes:
        steps: steps of gradient descent; the learning rate falls over them.
        seconds: time after which no further step is made.
        candidates: N, latents searched at once.
    """

    steps: int = 200
    seconds: float = 60.0
    candidates: int = 8


class Projector:
    """Searches the latents of a generator.

    Args:
        space: latents and generator, frozen and in eval mode.
        shape: (C, H, W) of its images.
        classes: K of class labels; 0: there are none.
        logits: D(x, c) of images [B, C, H, W], a logit or a map of them for each; None if there is no discriminator.
    """

    def __init__(
        self,
        space: LatentSpace,
        shape: tuple[int, int, int],
        classes: int,
        logits: Callable[[Tensor, Given], Tensor] | None = None,
    ) -> None:
        self.space, self.shape, self.classes, self.logits = space, shape, classes, logits

    def project(self, search: Search, budget: Budget, watch: Watch = lambda steps, image: True) -> Candidates:
        """Return the latents whose images are nearest to a target. Deterministic, unless time or `watch` ends it.

        Starts are that of an edit, then guesses, then the best of DRAWN random latents.

        Raises:
            UserError: a term needs what the run does not have.
        """
        terms = Terms(search.target, search.weights, search.start, self.logits, self.space.scale)
        latents, labels = self._starts(search, terms, budget.candidates)
        deadline, made = time.monotonic() + budget.seconds, 0
        best, least = latents.clone(), torch.full((len(latents),), math.inf, dtype=latents.dtype)
        first = self.images(latents, labels)
        latents.requires_grad_(True)
        rate = RATE * self.space.scale
        optimizer = torch.optim.Adam([latents], rate, BETAS)
        for step in range(budget.steps + 1):
            given = given_of(labels)
            losses = terms.losses(latents, self.space.images(latents, given), given)
            best = torch.where((losses < least)[:, None], latents, best).detach()
            least = torch.minimum(losses, least).detach()
            if step == budget.steps or time.monotonic() > deadline:
                break
            if not watch(step, functools.partial(self._best_image, best, least, labels)):
                break
            (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / budget.steps)) / 2
            optimizer.step()
            with torch.no_grad():
                latents.copy_(self.space.allowed(latents))
            made += 1
        order = least.argsort()
        best, labels, first = best[order], None if labels is None else labels[order], first[order]
        images = self.images(best, labels)
        return Candidates(best, images, labels, least[order], terms.errors(images), first, terms.errors(first), made)

    def target(self, pixels: NDArray[np.uint8], drawn: NDArray[np.float32]) -> Target:
        """Return colours uint8 [H, W, C] and shares [H, W] in [0, 1] as a target."""
        of = self.space.dtype
        colours = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(of) / 127.5 - 1
        return Target(colours, torch.from_numpy(drawn.copy())[None].to(of))

    def images(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Return the images of latents [B, Z] and labels int64 [B], [B, C, H, W] in [-1, 1], without gradients."""
        with torch.no_grad():
            return self.space.images(latents, given_of(labels))

    def labels(self, count: int, label: int | None, first: int = 0) -> Tensor | None:
        """Return labels int64 [count]: the given one, else all classes in turn, from class `first` mod K on."""
        if not self.classes:
            return None
        return (torch.arange(count) + first) % self.classes if label is None else torch.full((count,), label)

    def _starts(self, search: Search, terms: Terms, count: int) -> tuple[Tensor, Tensor | None]:
        """Return latents [count, Z] to begin with, and their labels."""
        drawn = self.space.draw(DRAWN, search.seed, given_of(self.labels(DRAWN, search.label)))
        fixed = [*([] if search.start is None else [search.start.latent]), *search.guesses][:count]
        tries = self.classes if search.label is None and self.classes else 1  # Each with the class that suits it best.
        pool = torch.cat([*(latent.to(drawn).expand(tries, -1) for latent in fixed), drawn])
        labels = self.labels(len(pool), search.label)
        with torch.no_grad():
            given = given_of(labels)
            losses = terms.losses(pool, self.space.images(pool, given), given)
        of_fixed, of_drawn = losses[:-DRAWN], losses[-DRAWN:]
        best = of_fixed.view(len(fixed), tries).argmin(1) if fixed else torch.arange(0)
        chosen = best + tries * torch.arange(len(fixed))
        at = torch.cat([chosen, of_drawn.argsort()[: count - len(fixed)] + len(of_fixed)])
        return pool[at], None if labels is None else labels[at]

    def _best_image(self, latents: Tensor, losses: Tensor, labels: Tensor | None) -> Tensor:
        at = losses.argmin()[None]
        return self.images(latents[at], None if labels is None else labels[at])[0]


def given_of(labels: Tensor | None) -> Given:
    """Return labels int64 [B] as a condition."""
    return {} if labels is None else {"label": labels}


def projector_of(sampler: Sampler, space: SpaceName | None = None) -> Projector:
    """Return the projector of a checkpoint in one of its latent spaces; None: w where it has one, else z.

    Raises:
        UserError: its generator has no latent that can be searched, or is told more than a class.
    """
    condition, config = sampler.game.condition, sampler.config
    if condition.pictures or (condition.fields and not condition.classes):
        raise UserError(
            f"{config.run.name}: objective.condition: {config.objective.condition}: its images are made of what you "
            "give it; take `ganrun sample --input`, or `ganrun paint`"
        )
    latents, (channels, size) = space_of(sampler, space), config.data.shape(config.objective.target)
    shape = channels, size, size
    discriminator = sampler.game.networks.get("discriminator")
    if discriminator is None:
        return Projector(latents, shape, condition.classes)
    noise = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), latents.dtype).under("judge")
    return Projector(
        latents, shape, condition.classes, lambda images, given: judge(discriminator, images, given, noise)
    )


def limit_threads(size: int) -> None:
    """Compute with one thread if images have at most SMALL pixels a side, on which threads wait more than they compute.

    On two busy cores an edit of a 32x32 image took 0.3 to 0.7 s with one thread, and 1.7 to 5.9 s with two.
    """
    if size <= SMALL:
        torch.set_num_threads(1)


def encoder_of(where: str, projector: Projector) -> Callable[[Tensor], Tensor]:
    """Return the encoder of a run of the game `inversion`: an image [C, H, W] in [-1, 1] to a latent [Z].

    Raises:
        UserError: it is no such run, or its encoder is for other images or latents.
    """
    sampler = Sampler(where)
    encoder, config = sampler.game.networks.get("encoder"), sampler.config
    if config.objective.game != "inversion" or encoder is None:
        raise UserError(f"--encoder {where}: objective.game: {config.objective.game}; give a run of the game inversion")
    channels, size = config.data.shape(config.objective.target)
    of = (channels, size, config.model.latent_size)
    if of != (wanted := (*projector.shape[:2], projector.space.size)):
        text = "{} channels, {} pixels a side and {} latents"
        raise UserError(f"--encoder {where}: is for {text.format(*of)}, but this run has {text.format(*wanted)}")

    def encode(image: Tensor) -> Tensor:
        with torch.no_grad():
            return projector.space.allowed(encoder(image[None]))[0]

    return encode
