"""Terms that pull G(z, c) towards the x that belongs to c, beside the adversarial loss.

Notation: x real images, x' = G(z, c), both [B, C, H, W] in [-1, 1] and before augmentation. A term is a mean over the
batch, to be minimised; its gradient reaches G through x'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganrun.games.calls import judge
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


@dataclass(frozen=True)
class Seen:
    """Inputs of a term beside the images.

    Attributes:
        given: condition c.
        networks: D, and the frozen networks of the game, by name.
        noise: noise of the turn.
    """

    given: Given
    networks: Mapping[str, nn.Module]
    noise: KeyedNoise


Term = Callable[[Tensor, Tensor, Seen], Tensor]
"""(x, x', what else it may use) -> scalar, without its weight."""


def l1(real: Tensor, fake: Tensor, seen: Seen) -> Tensor:
    """Return E |x - x'| per pixel: Isola et al. 2017 (arXiv:1611.07004), eq. 3. The paper's weight is 100."""
    return (real - fake).abs().mean()


def l2(real: Tensor, fake: Tensor, seen: Seen) -> Tensor:
    """Return E (x - x')^2 per pixel: Pathak et al. 2016 (arXiv:1604.07379), eq. 1, without its mask."""
    return (real - fake).square().mean()


def gradient_difference(real: Tensor, fake: Tensor, seen: Seen) -> Tensor:
    """Return E | |dx| - |dx'| | with d the differences of neighbouring pixels, down and across: it keeps edges sharp.

    Mathieu et al. 2016 (arXiv:1511.05440), eq. 6, with alpha = 1, as a mean per pixel.
    """
    terms = [(real.diff(dim=dim).abs() - fake.diff(dim=dim).abs()).abs().mean() for dim in (2, 3)]
    return terms[0] + terms[1]


def feature_matching(real: Tensor, fake: Tensor, seen: Seen) -> Tensor:
    """Return the mean over layers j of E |f_j(x, c) - f_j(x', c)|, with f_j features of D.

    Wang et al. 2018 (arXiv:1711.11585), eq. 4. A discriminator without a method `intermediate` has one layer, its
    `features`. (`objective.feature_matching` compares means over a batch: there no x belongs to an x'.)
    """
    discriminator = seen.networks["discriminator"]
    output = "intermediate" if hasattr(discriminator, "intermediate") else "features"

    def features(images: Tensor) -> list[Tensor]:
        # Dropout is alike for x and x', so that it does not count as a difference.
        found = judge(discriminator, images, seen.given, seen.noise.under("matching"), output)
        return found if isinstance(found, list) else [found]

    with torch.no_grad():
        of_real = features(real)
    pairs = zip(of_real, features(fake), strict=True)
    return torch.stack([(a.to(fake.dtype) - b.to(fake.dtype)).abs().mean() for a, b in pairs]).mean()


def perceptual(real: Tensor, fake: Tensor, seen: Seen) -> Tensor:
    """Return the mean over layers j of E (phi_j(x) - phi_j(x'))^2 per feature, with phi_j of a frozen network.

    Johnson et al. 2016 (arXiv:1603.08155), eq. 2; `objective.perceptual` names the network, theirs is VGG16.
    """
    network = seen.networks["perceptual"]
    with torch.no_grad():
        of_real = network(real)
    pairs = zip(of_real, network(fake), strict=True)
    return torch.stack([(a.to(fake.dtype) - b.to(fake.dtype)).square().mean() for a, b in pairs]).mean()


@dataclass(frozen=True)
class Reconstruction:
    """Weighted sum of the terms of a config.

    Attributes:
        weighted: (term, weight) by name.
    """

    weighted: Mapping[str, tuple[Term, float]]

    def __call__(self, real: Tensor, fake: Tensor, seen: Seen) -> dict[str, Tensor]:
        """Return the weighted terms by name, as scalars."""
        return {name: weight * term(real, fake, seen) for name, (term, weight) in self.weighted.items()}
