"""Gradient penalties of the discriminator, added to L_D in its own turn; weight clipping.

Notation: D discriminator logits, x real image, x' generated image, nabla the gradient with respect to the image. A
penalty is a mean over the batch of one slot. It is taken at the images D is trained on, so after augmentation. x[i] and
x'[i] share condition c[i], which the gradient does not reach. D of an image is the mean of its map of logits, if D
returns one.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.config.schedules import Schedule
from ganrun.models.given import Given
from ganrun.models.precision import full_precision
from ganrun.models.slot_statistics import without_batch_stats
from ganrun.rng import KeyedNoise

DIFFERENCE = 0.01
"""h: standard deviation of the noise of finite differences, for images in [-1, 1]."""
Discriminator = Callable[[Tensor, Given], Tensor]
"""(images [B, C, H, W], condition) -> logits [B], or a map of logits [B, H', W']."""
Penalty = Callable[[Discriminator, Tensor, Tensor, Given, KeyedNoise], Tensor]
"""(discriminator, x [B, C, H, W], x' [B, C, H, W], condition, noise) -> scalar, without its weight.
Penalties whose fourth argument is called `label` receive labels [B] or None, and may give these to the discriminator.
"""


def wgan_gp(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E (|nabla D| - 1)^2 at random points between x and x': Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3.

    The paper's weight is 10.
    """
    return (slope(discriminator, between(real, fake, noise), given) - 1).square().mean()


def wgan_lp(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E max(0, |nabla D| - 1)^2 at random points between x and x': the one-sided WGAN-LP penalty.

    Petzka et al. 2018 (arXiv:1709.08894).
    """
    return (slope(discriminator, between(real, fake, noise), given) - 1).relu().square().mean()


def r1(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E |nabla D(x)|^2 / 2: Mescheder et al. 2018 (arXiv:1801.04406), eq. 9. The weight is the paper's gamma."""
    return slope(discriminator, real, given).square().mean() / 2


def r2(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E |nabla D(x')|^2 / 2: Mescheder et al. 2018 (arXiv:1801.04406), eq. 10. The weight is the paper's gamma."""
    return slope(discriminator, fake, given).square().mean() / 2


def r1_differences(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """`r1` by finite differences, without a gradient of a gradient: two more passes of D in place of it."""
    return differences(discriminator, real, given, noise, "real").square().mean() / 2


def r2_differences(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """`r2` by finite differences."""
    return differences(discriminator, fake, given, noise, "fake").square().mean() / 2


def dragan(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E (|nabla D(x + delta)| - 1)^2 with delta ~ N(0, c): Kodali et al. 2017 (arXiv:1705.07215), with k = 1.

    sqrt(c) is half the standard deviation of the slot's real images, so that the noise scales with the data.
    """
    delta = noise.normal(*real.shape, name="penalty/dragan")
    return (slope(discriminator, real + delta * real.std() / 2, given) - 1).square().mean()


def matching_aware(discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise) -> Tensor:
    """E (|nabla_x D(x, e)| + |nabla_e D(x, e)|)^6 at real images and the sentences e that belong to them.

    Tao et al. 2022, DF-GAN (arXiv:2008.05865), eq. 2 with p = 6. The paper's weight k is 2.
    """
    inputs = (real.detach().requires_grad_(), given["text"].detach().requires_grad_())
    logits = per_image(discriminator(inputs[0], {**given, "text": inputs[1]}))
    gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    slopes = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
    penalty: Tensor = (slopes[0] + slopes[1]).pow(6).mean()
    return penalty


def differences(discriminator: Discriminator, images: Tensor, given: Given, noise: KeyedNoise, side: str) -> Tensor:
    """Return (D(x + h n) - D(x - h n)) / 2h for one n ~ N(0, I) per image, [B].

    The mean of its square over n is |nabla D|^2, exactly if D is quadratic. Lin et al. 2025 (arXiv:2501.08316), eq. 8,
    take the difference on one side, whose error is of the order of h.
    """
    step, images = DIFFERENCE * noise.normal(*images.shape, name=f"penalty/differences/{side}"), images.detach()
    above, below = (per_image(discriminator(moved, given)) for moved in (images + step, images - step))
    return (above - below) / (2 * DIFFERENCE)


def per_image(logits: Tensor) -> Tensor:
    """Return logits [B], or the means of maps of logits [B, H, W], [B]."""
    return logits if logits.ndim == 1 else logits.flatten(1).mean(1)


def between(real: Tensor, fake: Tensor, noise: KeyedNoise) -> Tensor:
    """Return epsilon x + (1 - epsilon) x' [B, C, H, W], with one epsilon ~ U[0, 1) per image."""
    return torch.lerp(fake, real, noise.uniform(len(real), 1, 1, 1, name="penalty/between"))


def slope(discriminator: Discriminator, images: Tensor, given: Given) -> Tensor:
    """Return |nabla D| at each image, [B], with a graph for the gradient with respect to D's weights."""
    images = images.detach().requires_grad_()
    # The gradient of the sum is the gradient of each logit as long as D does not mix images of a batch.
    logits = per_image(discriminator(images, given))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    # vector_norm has derivative 0 at a zero gradient; square().sum().sqrt() has NaN.
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Penalties:
    """Weighted sum of the penalties of a config, with lazy regularisation.

    Lazy regularisation (Karras et al. 2020, arXiv:1912.04958, section 3.1): every k-th round, multiplied by k.
    StyleGAN2 takes a separate optimizer step for the penalty and corrects Adam's hyper-parameters for it. Here the
    penalty is part of the same step as the loss, so Adam needs no correction.

    Attributes:
        weighted: (penalty, weight) by name. A weight may be a schedule.
        every_rounds: k.
    """

    weighted: Mapping[str, tuple[Penalty, float | Schedule]]
    every_rounds: int = 1

    def are_due(self, round: int) -> bool:
        """Return True if a round has penalties, with `round` rounds before it."""
        return bool(self.weighted) and round % self.every_rounds == 0

    def __call__(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise
    ) -> dict[str, Tensor]:
        """Return the weighted penalties of this round by name, as scalars; empty in rounds without penalties.

        Autocast is off: second derivatives, squared, need more precision than bf16. The extra passes do not update
        the running statistics of batch norm.
        """
        if not self.are_due(noise.round):
            return {}
        real, fake = real.to(noise.dtype), fake.to(noise.dtype)
        with full_precision(noise.device), without_batch_stats():
            return {
                name: weight_now(name, weight, noise)
                * penalty(discriminator, real, fake, _for(penalty, given), noise)
                * self.every_rounds
                for name, (penalty, weight) in self.weighted.items()
            }


def weight_now(name: str, weight: float | Schedule, noise: KeyedNoise) -> float | Tensor:
    """Return the weight of a penalty in this round."""
    return noise.scheduled(weight.at, f"penalty/{name}/weight") if isinstance(weight, Schedule) else weight


def _for(penalty: Penalty, given: Given) -> Any:
    """Return what a penalty takes: the condition, or of one written before conditions its labels."""
    return given.get("label") if list(inspect.signature(penalty).parameters)[3:4] == ["label"] else given


def clip_weights(critic: nn.Module, bound: float) -> None:
    """Clip all parameters to [-bound, bound] in place: Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1."""
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-bound, bound)
