"""Terms that projection minimises: how far images are from a picture or from strokes, and from the picture before.

Notation: x = G(w, c) [B, C, H, W], t the target and m its weights, x0 and w0 the image and the latent before an edit.
All are means per number, of images in [-1, 1].
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganrun.config.validate_objective import PERCEPTUAL_PIXELS
from ganrun.errors import UserError
from ganrun.models.given import Given
from ganrun.models.perceptual import perceptual_network

EPSILON = 1e-6
"""Least sum of weights, where nothing is drawn."""
LATENT_SHARE = 0.1
"""Weight of the distance of latents beside that of images in `keep`."""


PERCEPTUAL = 0.1
"""Weight of the perceptual term unless it is given."""


@dataclass(frozen=True)
class Target:
    """What an image is to look like.

    Attributes:
        colours: t, [C, H, W] in [-1, 1].
        drawn: m, [1, H, W] in [0, 1]: how much of each pixel was drawn; 1 everywhere for a picture.
    """

    colours: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class Weights:
    """Weights of the terms that are minimised.

    Attributes:
        colour: E m (x - t)^2 / E m.
        edges: the same of the differences between neighbouring pixels, down and across.
        perceptual: the mean over layers of E (phi(x') - phi(t'))^2 / E phi(t')^2 of a frozen network phi, where what
            was not drawn is taken from x0 (or is grey) in both x' and t'.
        keep: E (1 - m) (x - x0)^2 / E (1 - m) + LATENT_SHARE E (w - w0)^2 over the variance of w, for an edit of a
            picture.
        realism: E softplus(-D(x, c)), the discriminator's opinion.
    """

    colour: float = 1.0
    edges: float = 0.0
    perceptual: float = 0.0
    keep: float = 0.0
    realism: float = 0.0

    @classmethod
    def of_size(cls, size: int, **given: float) -> "Weights":
        """Return the weights for whole pictures of so many pixels a side, with some of them given."""
        return cls(**{"perceptual": PERCEPTUAL if size >= PERCEPTUAL_PIXELS else 0.0} | given)


@dataclass(frozen=True)
class Start:
    """Latent before an edit.

    Attributes:
        latent: w0, [Z].
        image: x0, [C, H, W].
    """

    latent: Tensor
    image: Tensor


class Terms:
    """Weighted sum of the terms.

    Args:
        target: what to look like.
        weights: of the terms.
        start: what was there before the edit; None: nothing.
        logits: D(x, c), a logit or a map of them for each image; None if there is no discriminator.
        scale: standard deviation of the numbers of a latent.

    Raises:
        UserError: a term needs what the run does not have.
    """

    def __init__(
        self,
        target: Target,
        weights: Weights,
        start: Start | None,
        logits: Callable[[Tensor, Given], Tensor] | None,
        scale: float = 1.0,
    ) -> None:
        self.weights, self.start, self.logits, self.scale = weights, start, logits, scale
        self.colours, self.drawn = target.colours[None], target.drawn[None]
        if weights.realism and logits is None:
            raise UserError("realism: this run has no discriminator whose opinion could count; set it to 0")
        self.background = torch.zeros_like(self.colours) if start is None else start.image[None]
        if weights.perceptual:
            if self.colours.shape[2] < PERCEPTUAL_PIXELS:
                raise UserError(
                    f"perceptual: needs images of at least {PERCEPTUAL_PIXELS} pixels a side, and this run makes "
                    f"{self.colours.shape[2]}; set it to 0"
                )
            self.features = _features().to(self.colours.dtype)
            with torch.no_grad():
                self.wanted = self.features(self._on_background(self.colours))

    def errors(self, images: Tensor) -> Tensor:
        """Return E m |x - t| / E m of images [B, C, H, W], [B]."""
        return _mean((images - self.colours).abs(), self.drawn)

    def losses(self, latents: Tensor, x: Tensor, given: Given) -> Tensor:
        """Return the weighted sum of the terms for latents [B, Z], their images x and condition, [B]."""
        weights = self.weights
        loss = weights.colour * _mean((x - self.colours).square(), self.drawn)
        if weights.edges:
            loss = loss + weights.edges * self._edges(x)
        if weights.perceptual:
            pairs = zip(self.features(self._on_background(x)), self.wanted, strict=True)
            layers = [(of_x - of_t).square().flatten(1).mean(1) / of_t.square().mean() for of_x, of_t in pairs]
            loss = loss + weights.perceptual * torch.stack(layers).mean(0)
        if weights.keep and self.start is not None:
            moved = LATENT_SHARE * ((latents - self.start.latent) / self.scale).square().mean(1)
            loss = loss + weights.keep * (_mean((x - self.background).square(), 1 - self.drawn) + moved)
        if weights.realism:
            assert self.logits is not None
            logits = self.logits(x, given).reshape(len(x), -1).mean(1)
            loss = loss + weights.realism * softplus(-logits)
        return loss

    def _edges(self, x: Tensor) -> Tensor:
        """Return the squared error of the differences between neighbours that are both drawn, [B]."""
        terms = []
        for dim in (2, 3):
            both = self.drawn.narrow(dim, 1, self.drawn.shape[dim] - 1) * self.drawn.narrow(
                dim, 0, self.drawn.shape[dim] - 1
            )
            terms.append(_mean((x.diff(dim=dim) - self.colours.diff(dim=dim)).square(), both))
        return terms[0] + terms[1]

    def _on_background(self, x: Tensor) -> Tensor:
        return self.drawn * x + (1 - self.drawn) * self.background


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of [B, C, H, W] for each image, weighted by [1, 1, H, W], [B]; 0 if all weights are 0."""
    return (values * where).flatten(1).sum(1) / (where.sum() * values.shape[1]).clamp(min=EPSILON)


@functools.cache
def _features() -> nn.Module:
    """Return phi: EfficientNet-Lite0, whose weights are part of the package."""
    return perceptual_network("efficientnet-lite0").eval().requires_grad_(False)
