"""RealNVP (Dinh et al. 2017, arXiv:1605.08803): affine couplings on checkerboards and on channels, at two scales.

At the full resolution couplings alternate between the two colours of a checkerboard; after a squeeze, between halves of
the channels (figure 3). Half of the channels then leave, and the rest goes through checkerboards at half resolution.
ActNorm takes the place of the paper's batch norm, which has statistics of a batch.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.flows import ActNorm, Coupling, Flow, Layer, Sequence, Split, Squeeze, convolutions


class CheckerboardCoupling(Coupling):
    """A coupling that keeps the pixels of one colour of a checkerboard.

    Args:
        network: [B, C, H, W] -> [B, 2 C, H, W].
        colour: of the pixels that are kept: 0 that of the upper left.
    """

    def __init__(self, network: nn.Module, colour: Literal[0, 1]) -> None:
        super().__init__(network)
        self.colour = colour

    def _kept(self, x: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
        return ((rows[:, None] + columns) % 2 == self.colour).to(x.dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant."""
        kept = self._kept(x)
        shift, log_scale = self._of(x * kept)
        log_scale = log_scale * (1 - kept)
        return (x + shift * (1 - kept)) * log_scale.exp(), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x."""
        kept = self._kept(z)
        shift, log_scale = self._of(z * kept)
        return z * torch.exp(-log_scale * (1 - kept)) - shift * (1 - kept)


class SwappedCoupling(Coupling):
    """A coupling that keeps the second half of the channels."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the second half and the first."""
        first, second = x.chunk(2, dim=1)
        return second, first

    def join(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Return both halves in their order."""
        return torch.cat([changed, kept], dim=1)


def realnvp(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network: `model.blocks` couplings on checkerboards and as many on channels at each scale."""
    channels, width, blocks = data.channels, model.width, model.blocks or 4
    layers = [*_checkerboards(channels, width, blocks), Squeeze(), *_halves(4 * channels, width, blocks)]
    layers.append(Split(4 * channels))
    layers += _checkerboards(2 * channels, width, blocks)
    layers += [Squeeze(), *_halves(8 * channels, width, blocks)]
    return {"density": Flow(Sequence(*layers), (data.channels, data.image_size, data.image_size))}


def _checkerboards(channels: int, width: int, count: int) -> list[Layer]:
    layers: list[Layer] = []
    for number in range(count):
        network = convolutions(channels, width, 2 * channels)
        layers += [ActNorm(channels), CheckerboardCoupling(network, 1 if number % 2 else 0)]
    return layers


def _halves(channels: int, width: int, count: int) -> list[Layer]:
    layers: list[Layer] = []
    for number in range(count):
        network = convolutions(channels // 2, width, channels)
        layers += [ActNorm(channels), (SwappedCoupling if number % 2 else Coupling)(network)]
    return layers
