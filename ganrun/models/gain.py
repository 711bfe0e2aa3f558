"""Networks of GAIN (Yoon et al. 2018, arXiv:1806.02920, section 5): MLPs that fill and judge the numbers of a row.

Rows of tables are points, stored as 1x1 images, with numbers in [0, 1].

Shapes: B batch, N numbers of a row, W width (units of a hidden layer).
"""

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.given import Given
from ganrun.models.mlp import hidden_layers, initialise
from ganrun.rng import KeyedNoise

NOISE = 0.01
"""Upper end of the uniform noise that stands in for missing numbers, as in the authors' code."""


class Generator(nn.Module):
    """Known numbers and the mask of the missing ones, [B, N, 1, 1] each -> all numbers [B, N, 1, 1] in [0, 1]."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.layers = hidden_layers(2 * numbers, width, numbers)

    def forward(self, given: Given, noise: KeyedNoise) -> Tensor:
        """Return rows [B, N, 1, 1] for `masked` and `mask` of a condition."""
        known, missing = given["masked"].flatten(1), given["mask"].flatten(1)
        z = NOISE * noise.uniform(*known.shape, name="z")
        rows: Tensor = self.layers(torch.cat([known + missing * z, missing], dim=1))
        return rows.sigmoid()[:, :, None, None]


class Discriminator(nn.Module):
    """Completed rows and hints, [B, N, 1, 1] each -> a logit for each number [B, N, 1, 1], above 0 for known."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.layers = hidden_layers(2 * numbers, width, numbers)

    def forward(self, images: Tensor, given: Given) -> Tensor:
        """Return the logits for rows and `hint` of a condition."""
        logits: Tensor = self.layers(torch.cat([images.flatten(1), given["hint"].flatten(1)], dim=1))
        return logits[:, :, None, None]


def gain(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build generator and discriminator."""
    networks: dict[str, nn.Module] = {
        "generator": Generator(data.channels, model.width),
        "discriminator": Discriminator(data.channels, model.width),
    }
    for network in networks.values():
        network.apply(initialise)
    return networks
