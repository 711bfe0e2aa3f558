"""Exponential moving average (EMA) of a network's weights, with a half-life in images."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

RAMP = 0.05
"""Largest half-life as a share of the images shown, so that the initial weights do not dominate the average (Karras et
al. 2020, arXiv:2006.06676, appendix C)."""


class EMA:
    """Exponential moving average of a network (Yazici et al. 2019, arXiv:1806.04498, for GANs).

    After each round, ema = decay * ema + (1 - decay) * network with decay = 0.5 ** (images of the round / half-life).
    Running statistics of normalisation layers are averaged like weights; integer buffers are copied.

    Args:
        network: the network; copied.
        half_life_images: `train.average_half_life_images`.
    """

    def __init__(self, network: nn.Module, half_life_images: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life_images = half_life_images
        self._pairs = list(zip(_state(self.network), _state(network), strict=True))

    @torch.no_grad()
    def update(self, images: int, images_shown: int) -> None:
        """Update the average after a round of `images`; `images_shown` is the number in total."""
        half_life = min(self.half_life_images, RAMP * images_shown)
        weight = 1 - 0.5 ** (images / half_life) if half_life > 0 else 1.0
        floats = [pair for pair in self._pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], weight)
        for mine, theirs in self._pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the averaged network."""
        return self.network.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of the averaged network."""
        self.network.load_state_dict(state_dict)


def _state(network: nn.Module) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
