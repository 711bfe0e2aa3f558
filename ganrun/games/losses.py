"""Adversarial losses: what each player makes of the discriminator's logits.

In the comments D(x) is the logit for an image x, sigma the logistic function, x real and x' generated.
All losses are means over the batch, to be minimised.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from ganrun.rng import KeyedNoise

Logits = Tensor
"""[B], any real number; above 0 means real where the loss is a classifier's."""


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of losses, each a scalar."""

    discriminator: Callable[[Logits, Logits], Tensor]
    """(logits of real images, logits of generated images) -> loss of the discriminator."""
    generator: Callable[..., Tensor]
    """Logits of generated images -> loss of the generator; if `relativistic`, (real, generated) -> it."""
    relativistic: bool = False
    """Whether the generator's loss too compares with real images; only then are they shown in its turn."""


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
)

# Lim & Ye 2017 (arXiv:1705.02894), section 3; Miyato et al. 2018 (arXiv:1802.05957), eq. 16 and 17.
hinge = AdversarialLoss(
    lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    lambda fake: -fake.mean(),
)

# Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1, as losses; the discriminator must be kept Lipschitz.
wasserstein = AdversarialLoss(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean())

# Jolicoeur-Martineau 2018 (arXiv:1807.00734), the relativistic standard GAN: x is paired with the x' in its place, and
# each player wants its own to have the greater logit. With the penalties R1 and R2 it is the objective of Huang et al.
# 2024 (arXiv:2501.05441), who call it the relativistic pairing loss.
relativistic = AdversarialLoss(
    lambda real, fake: softplus(fake - real).mean(),
    lambda real, fake: softplus(real - fake).mean(),
    relativistic=True,
)


@dataclass(frozen=True)
class DiscriminatorLoss:
    """L_D, with noise on what the discriminator is told is real.

    Attributes:
        adversarial: the pair of losses.
        flipping: share of pairs for which the discriminator is told the reverse.
        smoothing: real images count as real to 1 minus this.
    """

    adversarial: AdversarialLoss
    flipping: float = 0.0
    smoothing: float = 0.0

    def __call__(self, real: Logits, fake: Logits, noise: KeyedNoise) -> Tensor:
        """The loss of logits [B] of real and of generated images, a scalar."""
        if self.flipping:
            real, fake = flip_labels(real, fake, self.flipping, noise)
        loss = self.adversarial.discriminator(real, fake)
        return loss + smoothing(real, self.smoothing) if self.smoothing else loss


def flip_labels(real: Logits, fake: Logits, share: float, noise: KeyedNoise) -> tuple[Logits, Logits]:
    """What the discriminator is told is real, and what is not: in a random `share` of pairs it is told the reverse.

    One of the tricks that Chintala et al. 2016 collected ("How to train a GAN?", a talk at NIPS): labels with noise.
    """
    if not share:
        return real, fake
    flipped = noise.uniform(len(real), name="discriminator/flip") < share
    return torch.where(flipped, fake, real), torch.where(flipped, real, fake)


def smoothing(real: Logits, amount: float) -> Tensor:
    """What one-sided label smoothing adds to a cross-entropy: Salimans et al. 2016 (arXiv:1606.03498), section 3.4.

    With the target 1 - s instead of 1, (1 - s) softplus(-t) + s softplus(t) = softplus(-t) + s t.
    """
    return amount * real.mean()


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """|E f(x) - E f(x')|^2 for features f [B, ...] of D: Salimans et al. 2016 (arXiv:1606.03498), section 3.1."""
    return (real.mean(0) - fake.mean(0)).square().sum()
