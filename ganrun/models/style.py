"""Interface of generators with styles: mapping, synthesis, and truncation.

Shapes: B batch, Z numbers of z, W numbers of w, L layers that each take a w, S image size, C image channels.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


@runtime_checkable
class StyleGenerator(Protocol):
    """Generator G(z, c) = synthesis(w, ..., w) with w = mapping(z, c) (Karras et al. 2019, arXiv:1812.04948).

    Attributes:
        layers: L.
        w_size: W.
        truncation: psi of `truncated`; 1: none.
    """

    layers: int
    w_size: int
    truncation: float

    def mapping(self, z: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return w [B, W] for z [B, Z] and labels."""

    def synthesis(self, w: Tensor, noise: KeyedNoise | None = None) -> Tensor:
        """Return images [B, C, S, S] for w of each layer [B, L, W]; without `noise` there are no noise inputs."""

    def truncated(self, w: Tensor) -> Tensor:
        """Return w_mean + psi (w - w_mean) for w [B, W]."""
