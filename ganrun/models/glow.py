"""Glow (Kingma & Dhariwal 2018, arXiv:1807.03039): ActNorm, invertible 1x1 convolution, affine coupling.

Two scales: each begins with a squeeze and has `model.blocks` steps of flow; half of the channels leave after the first.
"""

from torch import nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.flows import (
    ActNorm,
    Coupling,
    Flow,
    InvertibleConvolution,
    Layer,
    Sequence,
    Split,
    Squeeze,
    convolutions,
)


def glow(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build the network."""
    layers: list[Layer] = []
    channels = data.channels
    for scale in range(2):
        channels *= 4
        layers.append(Squeeze())
        for _ in range(model.blocks or 8):
            coupling = Coupling(convolutions(channels // 2, model.width, channels))
            layers += [ActNorm(channels), InvertibleConvolution(channels), coupling]
        if scale == 0:
            layers.append(Split(channels))
            channels //= 2
    return {"density": Flow(Sequence(*layers), (data.channels, data.image_size, data.image_size))}
