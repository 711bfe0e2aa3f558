"""Adversarial losses of both players as functions of the discriminator's logits.

Notation: x real, x' generated, D(x) logit, sigma the logistic function. Each loss is a mean over the batch, to be
minimised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from ganrun.config.registry import with_own
from ganrun.rng import KeyedNoise

Logits = Tensor
"""Discriminator output [B], or a map of logits [B, H', W'] over patches, unbounded."""


@dataclass(frozen=True)
class AdversarialLoss:
    """Loss functions of the discriminator and the generator. Each returns a scalar."""

    discriminator: Callable[..., Tensor]
    """(D(x), D(x')) -> L_D."""
    generator: Callable[..., Tensor]
    """D(x') -> L_G; if `relativistic`, (D(x), D(x')) -> L_G."""
    relativistic: bool = False
    """True if L_G compares with real images. D then runs on real images in the generator's turn too."""
    boundary: float | None = 0.0
    """Logit above which D takes an image for real; None if it says that of no image alone, as a critic."""

    def with_own(self, own: Mapping[str, Any] | None) -> "AdversarialLoss":
        """Return the loss with the argument `own` of its functions filled in."""
        functions = (with_own(self.discriminator, own), with_own(self.generator, own))
        return replace(self, discriminator=functions[0], generator=functions[1])

    def sign(self, real: Tensor) -> Tensor | None:
        """Return r = E sign(D(x) - boundary) for the logits of real images, a scalar; None without a boundary."""
        if self.boundary is None or self.relativistic:
            return None
        return (real - self.boundary if self.boundary else real).sign().mean()


def _cross_entropy(real: Logits, fake: Logits) -> Tensor:
    # -log sigma(D(x)) - log(1 - sigma(D(x'))), with softplus(t) = log(1 + exp(t))
    return softplus(-real).mean() + softplus(fake).mean()


# Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1: the generator minimises log(1 - sigma(D(x'))).
minimax = AdversarialLoss(_cross_entropy, lambda fake: -softplus(fake).mean())

# Goodfellow et al. 2014, section 3: the generator minimises -log sigma(D(x')) instead.
non_saturating = AdversarialLoss(_cross_entropy, lambda fake: softplus(-fake).mean())

# Mao et al. 2017 (arXiv:1611.04076), eq. 2 and 9 with a = 0, b = c = 1.
least_squares = AdversarialLoss(
    lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
    lambda fake: (fake - 1).square().mean() / 2,
    boundary=0.5,
)

# Lim & Ye 2017 (arXiv:1705.02894), section 3; Miyato et al. 2018 (arXiv:1802.05957), eq. 16 and 17.
hinge = AdversarialLoss(
    lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    lambda fake: -fake.mean(),
)

# Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1, as losses; the discriminator must be kept Lipschitz.
wasserstein = AdversarialLoss(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean(), boundary=None)

# Jolicoeur-Martineau 2018 (arXiv:1807.00734), the relativistic standard GAN: x[i] is paired with x'[i]; D maximises
# D(x) - D(x') and G minimises it. With penalties R1 and R2 it is the objective of R3GAN (Huang et al. 2024,
# arXiv:2501.05441), there called the relativistic pairing loss.
relativistic = AdversarialLoss(
    lambda real, fake: softplus(fake - real).mean(),
    lambda real, fake: softplus(real - fake).mean(),
    relativistic=True,
)


@dataclass(frozen=True)
class DiscriminatorLoss:
    """L_D with label flipping and one-sided label smoothing.

    Attributes:
        adversarial: the losses.
        flipping: share of (x, x') pairs with swapped labels, 0..1.
        smoothing: s; the target of real images is 1 - s.
    """

    adversarial: AdversarialLoss
    flipping: float = 0.0
    smoothing: float = 0.0

    def __call__(self, real: Logits, fake: Logits, noise: KeyedNoise) -> Tensor:
        """Return the scalar loss for the logits of real and of generated images."""
        if self.flipping:
            real, fake = flip_labels(real, fake, self.flipping, noise)
        loss = self.adversarial.discriminator(real, fake)
        return loss + smoothing(real, self.smoothing) if self.smoothing else loss


def flip_labels(real: Logits, fake: Logits, share: float, noise: KeyedNoise) -> tuple[Logits, Logits]:
    """Swap the labels of a random `share` of (x, x') pairs.

    Noisy labels are a trick from Chintala et al. 2016, "How to train a GAN?", NIPS workshop talk.

    Returns:
        Logits labelled real and logits labelled generated.
    """
    if not share:
        return real, fake
    # All logits of an image are flipped together.
    flipped = noise.uniform(len(real), *[1] * (real.ndim - 1), name="discriminator/flip") < share
    return torch.where(flipped, fake, real), torch.where(flipped, real, fake)


def smoothing(real: Logits, amount: float) -> Tensor:
    """Return the term that one-sided label smoothing adds to the cross-entropy of real images.

    Salimans et al. 2016 (arXiv:1606.03498), section 3.4. With target 1 - s and logit t the cross-entropy is
    (1 - s) softplus(-t) + s softplus(t) = softplus(-t) + s t, so the term is s * mean(t).
    """
    return amount * real.mean()


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Return |E f(x) - E f(x')|^2, with f(x) [B, ...] features of D.

    Salimans et al. 2016 (arXiv:1606.03498), section 3.1.
    """
    return (real.mean(0) - fake.mean(0)).square().sum()
