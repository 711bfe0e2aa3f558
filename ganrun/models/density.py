"""Interface of a density: a network that states the probability of an image, and draws images from it.

Shapes: B batch, C channels, H and W pixels, D = C H W numbers of an image.
"""

import math
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from ganrun.rng import KeyedNoise

LEVELS = 256
"""Values of a number of an image: 8 bits."""

Passes = Callable[[], Iterator[tuple[Tensor, KeyedNoise]]]
"""Begins a pass over this worker's share of the training samples: images [B, C, H, W] in [-1, 1], or points, and their
noise. Each pass yields the same."""
AddOverRanks = Callable[[Tensor], None]
"""Adds a tensor over the workers, in place. Collective."""


class Density(nn.Module):
    """A density p(x) of images, or of points.

    An image has 256 levels, so log p(x) is the logarithm of a probability: at most 0.
    """

    bound: str = ""
    """Why `log_prob` is a lower bound; empty: it is exact."""
    takes_samples: bool = False
    """True if the bound is tighter with more importance samples."""
    sample_passes: int = 1
    """Network passes, one after the other, that a batch of samples takes."""
    latent_size: int = 0
    """Z, dimension of the z ~ N(0, I) that `from_z` turns into images; 0: there is none."""

    def log_prob(self, images: Tensor, noise: KeyedNoise, samples: int = 1) -> Tensor:
        """Return log p(x) in nats, or a lower bound of it, [B].

        Args:
            images: [B, C, H, W] in [-1, 1], or points.
            noise: noise of the batch, for dequantisation and latents.
            samples: importance samples of a bound that is made of some.
        """
        raise NotImplementedError

    def sample(self, count: int, noise: KeyedNoise) -> Tensor:
        """Return `count` images in [-1, 1], or points, drawn from p, [count, C, H, W]."""
        return self.from_z(noise.normal(count, self.latent_size, name="z"), noise)

    def from_z(self, z: Tensor, noise: KeyedNoise) -> Tensor:
        """Return the images that belong to z [B, Z]."""
        raise NotImplementedError

    def initialise(self, passes: Passes, add_over_ranks: AddOverRanks, em_passes: int = 0) -> None:
        """Set weights by the training samples, before the first round. All ranks call it; rank 0's weights count.

        Args:
            passes: begins a pass over this rank's samples.
            add_over_ranks: adds a tensor over the ranks, in place.
            em_passes: steps of expectation maximisation, each a pass; a density without it has none.
        """

    def parts(self) -> dict[str, Tensor]:
        """Return scalars to log beside the loss, by name."""
        return {}


def levels_of(images: Tensor) -> Tensor:
    """Return the levels 0 .. 255 of images in [-1, 1], as floats."""
    return ((images + 1) * ((LEVELS - 1) / 2)).round()


def of_levels(levels: Tensor) -> Tensor:
    """Return images in [-1, 1] of levels 0 .. 255."""
    return levels.clamp(0, LEVELS - 1) * (2 / (LEVELS - 1)) - 1


def dequantised(images: Tensor, noise: KeyedNoise) -> Tensor:
    """Return y = (v + u) / 256 in [0, 1), with v the levels of images [B, C, H, W] and u ~ U[0, 1).

    For a density q of y, E log q(y) - D log 256 <= log P(v), with P(v) the integral of q over the cube of v: Theis et
    al. 2016 (arXiv:1511.01844), section 3.1. Without u a density could put infinite peaks on the levels.
    """
    return (levels_of(images) + noise.uniform(*images.shape, name="dequantise")) / LEVELS


def quantised(y: Tensor) -> Tensor:
    """Return the images in [-1, 1] whose cubes y [B, C, H, W] lies in; outside of [0, 1) the nearest."""
    return of_levels((y * LEVELS).floor())


def standard_normal(z: Tensor) -> Tensor:
    """Return log N(z; 0, I) of z [B, ...], [B]."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
