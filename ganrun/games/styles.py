"""Training of generators with styles: style mixing, and path length regularisation.

Notation: f mapping and g synthesis of the generator, w = f(z, c), L layers that each take a w, y an image of N(0, 1),
S image size.
"""

import math

import torch
from torch import Tensor, nn

from ganrun.config.schedules import Schedule
from ganrun.games.latent import Latent
from ganrun.games.penalties import weight_now
from ganrun.models.given import Given
from ganrun.models.precision import full_precision
from ganrun.models.slot_statistics import without_batch_stats
from ganrun.models.style import StyleGenerator
from ganrun.rng import KeyedNoise

DECAY = 0.01
"""Weight of a round in the running mean of path lengths."""
SHARE = 2
"""The penalty is taken at one of so many images of a slot: it needs the most memory of a round (the authors: 2)."""


def mixed(
    generator: StyleGenerator, latent: Latent, z: Tensor, given: Given, noise: KeyedNoise, probability: float
) -> Tensor:
    """Return w of each layer, [B, L, W]: of some images the layers from a random one on have the w of another z.

    Karras et al. 2019 (arXiv:1812.04948, section 3.1). Each image draws whether and from which layer on.
    """
    first, count, layers = generator.mapping(z, given), len(z), generator.layers
    other = generator.mapping(latent.draw(noise, count, "mixing/z"), given)
    chance, place = noise.uniform(count, 2, name="mixing").unbind(1)
    begin = torch.where(chance < probability, 1 + (place * (layers - 1)).floor(), float(layers))
    is_other = torch.arange(layers, device=z.device) >= begin[:, None]
    return torch.where(is_other[:, :, None], other[:, None], first[:, None])


def path_lengths(generator: StyleGenerator, w: Tensor, noise: KeyedNoise) -> Tensor:
    """Return |J^T y| of each image with J the derivative of g(w) by w, over S, [B], with a graph for its gradient.

    Karras et al. 2020 (arXiv:1912.04958, section 3.2 and appendix B), with the root mean square over layers, as their
    code has it.

    Args:
        generator: g.
        w: of each layer, [B, L, W], with a graph.
        noise: y, and the noise of g.
    """
    images = generator.synthesis(w, noise)
    y = noise.normal(*images.shape, name="y") / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    # vector_norm has derivative 0 at a zero gradient; square().sum().sqrt() has NaN.
    lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1) / math.sqrt(generator.layers)
    return lengths


class PathLength(nn.Module):
    """Penalty (|J^T y| - a)^2 with a the running mean of lengths, every k-th round, multiplied by k.

    A `games.game.Tracker`: a is its state, the same on every worker, and moves after the round. The authors move it
    before they use it.

    Args:
        weight: weight of the penalty, 2 in the paper; it may be a schedule. 0: none.
        every_rounds: k.
    """

    watches = "path_length"
    mean: Tensor

    def __init__(self, weight: float | Schedule, every_rounds: int) -> None:
        super().__init__()
        self.weight, self.every_rounds = weight, every_rounds
        self.register_buffer("mean", torch.zeros(()))

    def is_due(self, round: int) -> bool:
        """Return True if a round has the penalty, with `round` rounds before it."""
        return self.weight != 0 and round % self.every_rounds == 0

    def forward(self, lengths: Tensor, noise: KeyedNoise) -> Tensor:
        """Return the weighted penalty of lengths [B], a scalar."""
        weight = weight_now("path_length", self.weight, noise)
        return (lengths - self.mean).square().mean() * weight * self.every_rounds

    @torch.no_grad()
    def update(self, mean: Tensor, images: int) -> None:
        """Move a towards the mean length over all slots. One that is not finite is skipped."""
        self.mean.lerp_(torch.where(torch.isfinite(mean), mean, self.mean), DECAY)

    def lengths(
        self, generator: StyleGenerator, latent: Latent, given: Given, count: int, mixing: float, noise: KeyedNoise
    ) -> Tensor:
        """Return the lengths of new images, [B / SHARE]. Autocast is off, as for all penalties.

        Args:
            generator: f and g.
            latent: distribution of z.
            given: conditions of `count` images, B.
            mixing: probability of style mixing.
            noise: of this round.
        """
        part, noise = max(1, count // SHARE), noise.under("path_length")
        with full_precision(noise.device), without_batch_stats():
            z = latent.draw(noise, part, "z")
            of_part = {name: value[:part] for name, value in given.items()}
            return path_lengths(generator, mixed(generator, latent, z, of_part, noise, mixing), noise)
