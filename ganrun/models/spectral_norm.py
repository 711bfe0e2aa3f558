"""Spectral norm with one step of power iteration per turn instead of per forward pass."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

INITIAL_STEPS = 15
"""Steps of power iteration at construction, so that sigma is accurate from the first turn."""


class SpectralNorm(nn.Module):
    """Wraps a layer and divides its weight W by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    A weight [O, ...] is reshaped to a matrix W [O, I] (section 2.1). Buffers u [O] and v [I] approximate its first
    singular vectors by power iteration. The player takes one step per turn, as in algorithm 1 of the paper.
    `torch.nn.utils.spectral_norm` takes one per forward pass; a worker with more slots would then take more.
    """

    u: Tensor
    v: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.layer = layer
        matrix = layer.weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
        self.register_buffer("v", torch.zeros_like(matrix[0]))
        for _ in range(INITIAL_STEPS):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """Take one step of power iteration: v = W^T u / |W^T u|, u = W v / |W v| (eqs. 20 and 21)."""
        matrix = self.layer.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.mT @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def sigma(self) -> Tensor:
        """Return sigma(W) = u^T W v (eq. 19), a scalar. Its gradient with respect to W is u v^T."""
        # A sum instead of matrix products, which autocast would compute in bf16.
        return (torch.outer(self.u, self.v) * self.layer.weight.flatten(1)).sum()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with weight W / sigma(W) (eq. 8)."""
        y: Tensor = functional_call(self.layer, {"weight": self.layer.weight / self.sigma()}, (x,))
        return y


def normalise_spectrally(network: nn.Module) -> None:
    """Wrap each Conv2d, Linear and Embedding of a network in SpectralNorm, in place. Call it after initialisation."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear | nn.Embedding):
            setattr(network, name, SpectralNorm(child))
        else:
            normalise_spectrally(child)
