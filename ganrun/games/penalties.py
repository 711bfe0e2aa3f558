"""Penalties on the slope of the discriminator, added to its loss in its own turn.

In the comments D is the discriminator's logits, x a real image, x' a generated one, and nabla the gradient with
respect to the image alone. All are means over the batch of one slot and take the images that D is shown, augmented if
they are: what is penalised is the slope where D is trained. An image's label is that of both x and x' in its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganrun.models.normalization import without_batch_stats
from ganrun.rng import KeyedNoise

Discriminator = Callable[[Tensor, Tensor | None], Tensor]
"""(images [B, C, H, W], labels [B] or None) -> logits [B]."""
Penalty = Callable[[Discriminator, Tensor, Tensor, Tensor | None, KeyedNoise], Tensor]
"""(discriminator, x, x', labels, noise) -> scalar, to be weighted and minimised."""


def wgan_gp(
    discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise
) -> Tensor:
    """E (|nabla D| - 1)^2 between x and x': Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3; their weight is 10."""
    return (slope(discriminator, between(real, fake, noise), label) - 1).square().mean()


def wgan_lp(
    discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise
) -> Tensor:
    """E max(0, |nabla D| - 1)^2 between x and x': the one-sided form of Petzka et al. 2018 (arXiv:1709.08894)."""
    return (slope(discriminator, between(real, fake, noise), label) - 1).relu().square().mean()


def r1(discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise) -> Tensor:
    """E |nabla D(x)|^2 / 2: Mescheder et al. 2018 (arXiv:1801.04406), eq. 9; the weight is their gamma."""
    return slope(discriminator, real, label).square().mean() / 2


def r2(discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise) -> Tensor:
    """E |nabla D(x')|^2 / 2: Mescheder et al. 2018 (arXiv:1801.04406), eq. 10; the weight is their gamma."""
    return slope(discriminator, fake, label).square().mean() / 2


def dragan(discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise) -> Tensor:
    """E (|nabla D(x + delta)| - 1)^2 with delta ~ N(0, c): Kodali et al. 2017 (arXiv:1705.07215), with k = 1.

    The root of c is here half the standard deviation of the slot's real images, so that it follows the data.
    """
    delta = noise.normal(*real.shape, name="penalty/dragan")
    return (slope(discriminator, real + delta * real.std() / 2, label) - 1).square().mean()


def between(real: Tensor, fake: Tensor, noise: KeyedNoise) -> Tensor:
    """epsilon x + (1 - epsilon) x' with one epsilon ~ U[0, 1] an image."""
    return torch.lerp(fake, real, noise.uniform(len(real), 1, 1, 1, name="penalty/between"))


def slope(discriminator: Discriminator, images: Tensor, label: Tensor | None) -> Tensor:
    """|nabla D| at each image, [B]; it can be differentiated once more, with respect to D's weights."""
    images = images.detach().requires_grad_()
    # Where D treats images one by one, the gradient of the sum is the gradient of each.
    (gradient,) = torch.autograd.grad(discriminator(images, label).sum(), images, create_graph=True)
    # Unlike the root of a sum of squares, its derivative where the gradient vanishes is 0 and not NaN.
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Penalties:
    """The penalties of a config with their weights.

    Lazily, after Karras et al. 2020 (arXiv:1912.04958), section 3.1: every k-th round, times k. Their Adam is corrected
    because a penalty takes a step of its own there; here it shares the loss's, and Adam stays as it is.

    Attributes:
        weighted: penalty and weight, by name.
        every_rounds: k.
    """

    weighted: Mapping[str, tuple[Penalty, float]]
    every_rounds: int = 1

    def __call__(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise
    ) -> dict[str, Tensor]:
        """The penalties of this round by name, as they enter the loss; empty in a round without them.

        Computed in the precision of the weights even where the losses are not: squares of second derivatives need more
        digits than bfloat16 has. Their passes leave no trace in the running statistics of batch normalisation.
        """
        if not self.weighted or noise.round % self.every_rounds:
            return {}
        real, fake = real.to(noise.dtype), fake.to(noise.dtype)
        with torch.autocast(noise.device.type, enabled=False), without_batch_stats():
            return {
                name: weight * penalty(discriminator, real, fake, label, noise) * self.every_rounds
                for name, (penalty, weight) in self.weighted.items()
            }


def clip_weights(critic: nn.Module, bound: float) -> None:
    """Weight clipping to [-bound, bound]: Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1, after each step."""
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-bound, bound)
