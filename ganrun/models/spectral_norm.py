"""Spectral normalisation, with one step of its power iteration a turn."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

BEGINNING = 15
"""Steps of the power iteration when the network is made, so that the first turn is normalised too."""


class SpectralNorm(nn.Module):
    """A layer whose weight W is divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    A weight [O, ...] is the matrix W [O, I] of its rows (section 2.1). u [O] and v [I], its first singular
    vectors as far as the power iteration has come, are part of the state. The paper takes a step of the
    iteration at each update (algorithm 1); so here it is a step a turn, never a forward pass: a worker with
    more slots does more passes.
    """

    u: Tensor
    v: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.layer = layer
        matrix = layer.weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
        self.register_buffer("v", torch.zeros_like(matrix[0]))
        for _ in range(BEGINNING):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """A step of the power iteration: v = W^T u / |W^T u|, u = W v / |W v| (eqs. 20 and 21)."""
        matrix = self.layer.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.mT @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def sigma(self) -> Tensor:
        """u^T W v (eq. 19), whose gradient by W is u v^T; a scalar."""
        # As a sum, not as products of matrices, which autocast would round to bf16.
        return (torch.outer(self.u, self.v) * self.layer.weight.flatten(1)).sum()

    def forward(self, x: Tensor) -> Tensor:
        """The layer with the weight W / sigma(W) (eq. 8)."""
        y: Tensor = functional_call(self.layer, {"weight": self.layer.weight / self.sigma()}, (x,))
        return y


def normalise_spectrally(network: nn.Module) -> None:
    """Puts every convolution, linear layer and embedding of a network, weights made, into a SpectralNorm."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear | nn.Embedding):
            setattr(network, name, SpectralNorm(child))
        else:
            normalise_spectrally(child)
