"""A sentence as condition, given as its embedding: what generators and discriminators make of it.

Shapes: B batch, N numbers of an embedding, P of its projection.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.models.given import Given, as_given
from ganrun.rng import KeyedNoise

SLOPE = 0.2
"""Negative slope of the leaky ReLU of a projection."""


class TextInput(NamedTuple):
    """Embeddings that networks receive as `given["text"]`, [B, N] with a mean square of 1.

    Attributes:
        size: N.
        projected: P.
        augmented: the generator draws its projection, see `TextProjection`.
    """

    size: int
    projected: int
    augmented: bool = False


class TextProjection(nn.Module):
    """leaky(W e + b), embeddings [B, N] -> [B, P]: Reed et al. 2016 (arXiv:1605.05396), section 4.1.

    With conditioning augmentation (StackGAN, Zhang et al. 2017, arXiv:1612.03242, section 3.2) the projection is drawn
    from N(mu(e), diag(sigma(e)^2)), with mu(e) the layer above.

    Args:
        text: N and P.
        augmented: the projection is drawn.
    """

    def __init__(self, text: TextInput, augmented: bool = False) -> None:
        super().__init__()
        self.mean = nn.Linear(text.size, text.projected)
        self.log_variance = nn.Linear(text.size, text.projected) if augmented else None

    def forward(self, given: Given | Tensor | None, noise: KeyedNoise | None = None) -> Tensor:
        """Return the projection of a condition, [B, P]; without noise its mean."""
        embedding = as_given(given)["text"]
        projected = F.leaky_relu(self.mean(embedding), SLOPE)
        if self.log_variance is None or noise is None:
            return projected
        drawn = noise.normal(*projected.shape, name="conditioning_augmentation")
        deviation: Tensor = (self.log_variance(embedding) / 2).exp()
        return projected + deviation * drawn

    def divergence(self, given: Given) -> Tensor:
        """Return KL(N(mu, diag(sigma^2)) || N(0, I)) of conditioning augmentation, the mean over B and P (eq. 3)."""
        assert self.log_variance is not None
        mean, log_variance = self(given), self.log_variance(given["text"])
        divergence: Tensor = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return divergence


def as_planes(projected: Tensor, like: Tensor) -> Tensor:
    """Return a projection [B, P] as constant planes [B, P, H, W] beside features [B, C, H, W]."""
    return projected.to(like.dtype)[:, :, None, None].expand(-1, -1, *like.shape[2:])
