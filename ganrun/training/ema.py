"""Exponential moving average (EMA) of a network's weights, with a half-life in images."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.training.flat import FlatNetwork

RAMP = 0.05
"""Largest half-life as a share of the images shown, so that the initial weights do not dominate the average (Karras et
al. 2020, arXiv:2006.06676, appendix C)."""


class EMA:
    """Exponential moving average of a network (Yazici et al. 2019, arXiv:1806.04498, for GANs).

    After each round, ema = decay * ema + (1 - decay) * network with decay = 0.5 ** (images of the round / half-life).
    Running statistics of normalisation layers are averaged like weights; integer buffers are copied.

    Args:
        network: the network; copied.
        flat: its state in blocks of memory.
    """

    def __init__(self, network: nn.Module, flat: FlatNetwork) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.blocks = FlatNetwork(self.network, flat.names).blocks
        self._pairs = list(zip(self.blocks, flat.blocks, strict=True))

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """Move the average towards the network. `weight` is `ema_weight` as a scalar on the device."""
        for mine, theirs in self._pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the averaged network."""
        return self.network.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of the averaged network."""
        self.network.load_state_dict(state_dict)


def ema_weight(half_life_images: float, images: int, images_shown: int) -> float:
    """Return the weight of the network after a round of `images`, the last of `images_shown`: 1 - decay."""
    half_life = min(half_life_images, RAMP * images_shown)
    return 1 - 0.5 ** (images / half_life) if half_life > 0 else 1.0
