"""Adversarial losses: what each player makes of the discriminator's logits.

In the comments D(x) is the logit for an image x, sigma the logistic function, x real and x' generated.
All losses are means over the batch, to be minimised.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

Logits = Tensor
"""[B], any real number; above 0 means real where the loss is a classifier's."""


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of losses, each a scalar."""

    discriminator: Callable[[Logits, Logits], Tensor]
    """(logits of real images, logits of generated images) -> loss of the discriminator."""
    generator: Callable[[Logits], Tensor]
    """Logits of generated images -> loss of the generator."""


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
