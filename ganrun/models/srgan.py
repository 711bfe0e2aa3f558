"""Networks of super-resolution: SRResNet's and ESRGAN's generators, and SRGAN's discriminator.

Ledig et al. 2017 (arXiv:1609.04802), figure 4, and Wang et al. 2018 (arXiv:1809.00219), figures 3 and 4. They take the
condition `low_resolution`. Unlike in the papers the generator's output is added to the bicubic picture (Kim et al.
2016, arXiv:1511.04587), so that training begins at the baseline.

Shapes: B batch, C image channels, S image size, F factor, W `model.width` (the papers: 64), N `model.blocks`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.given import Given
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.models.spectral_norm import normalise_spectrally

SLOPE = 0.2
"""Negative slope of the leaky ReLUs."""
DAMPING = 0.2
"""Weight of a residual branch in ESRGAN (section 3.1)."""
DENSE = 1024
"""Units of the discriminator's hidden layer."""


class ResidualBlock(nn.Module):
    """x + norm(conv(prelu(norm(conv(x))))), [B, W, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            SlotBatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            SlotBatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return x + self.layers(x)  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Five convolutions, each of all features before it, [B, W, H, W] to the same; W / 2 channels grow at each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        grown = max(width // 2, 1)
        outputs = (grown, grown, grown, grown, width)
        self.convs = nn.ModuleList(nn.Conv2d(width + n * grown, out, 3, 1, 1) for n, out in enumerate(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        features = [x]
        for conv in self.convs[:-1]:
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), SLOPE))
        return x + DAMPING * self.convs[-1](torch.cat(features, 1))  # type: ignore[no-any-return]


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks and a skip, [B, W, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return x + DAMPING * self.blocks(x)  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Pictures `low_resolution` [B, C, S / F, S / F] and `upscaled` [B, C, S, S] -> images [B, C, S, S].

    Args:
        channels, width: C, W.
        factor: F, a power of two.
        blocks: the residual blocks.
        norm: batch norm after them, as in SRResNet; ESRGAN has none.
    """

    def __init__(self, channels: int, width: int, factor: int, blocks: list[nn.Module], norm: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, width, 9 if norm else 3, 1, 4 if norm else 1), nn.PReLU())
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(width, width, 3, 1, 1, bias=not norm))
        self.norm = SlotBatchNorm2d(width) if norm else nn.Identity()
        steps = factor.bit_length() - 1
        up = [[nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()] for _ in range(steps)]
        self.up = nn.Sequential(*(layer for layers in up for layer in layers))
        self.last = nn.Conv2d(width, channels, 9 if norm else 3, 1, 4 if norm else 1)
        nn.init.normal_(self.last.weight, 0.0, 1e-3)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, given: Given) -> Tensor:
        """Return images [B, C, S, S]."""
        x = self.first(given["low_resolution"])
        x = x + self.norm(self.blocks(x))
        made: Tensor = given["upscaled"] + self.last(self.up(x))
        return made


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] -> logits [B], above 0 for real: eight convolutions and two dense layers.

    It does not see the condition. `spectral_norm` replaces batch norm, whose gain would undo the Lipschitz bound.
    """

    def __init__(self, image_size: int, channels: int, width: int, spectral_norm: bool) -> None:
        super().__init__()
        plan = [channels, *(width * 2 ** (number // 2) for number in range(8))]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(plan)):
            normalised = number > 0 and not spectral_norm
            conv = nn.Conv2d(inputs, outputs, 3, 1 + number % 2, 1, bias=not normalised)
            norm = [SlotBatchNorm2d(outputs)] if normalised else []
            layers.append(nn.Sequential(conv, *norm, nn.LeakyReLU(SLOPE, True)))
        self.layers = nn.Sequential(*layers)
        self.dense, self.last = nn.Linear(plan[-1] * (image_size // 16) ** 2, DENSE), nn.Linear(DENSE, 1)

    def intermediate(self, images: Tensor, given: Given) -> list[Tensor]:
        """Return the features of the convolutions, a list of [B, C', H, W]."""
        features = [images]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[1:]

    def features(self, images: Tensor, given: Given) -> Tensor:
        """Return the input of the last layer, [B, 1024]."""
        dense: Tensor = self.dense(self.intermediate(images, given)[-1].flatten(1))
        return F.leaky_relu(dense, SLOPE)

    def forward(self, images: Tensor, given: Given) -> Tensor:
        """Return logits [B]."""
        logits: Tensor = self.last(self.features(images, given))
        return logits.flatten()


def srgan(model: ModelConfig, data: DataConfig, factor: int) -> dict[str, nn.Module]:
    """Build SRResNet, of 16 blocks unless the config says another number, and the discriminator."""
    blocks: list[nn.Module] = [ResidualBlock(model.width) for _ in range(model.blocks or 16)]
    return _networks(Generator(data.channels, model.width, factor, blocks, norm=True), model, data)


def esrgan(model: ModelConfig, data: DataConfig, factor: int) -> dict[str, nn.Module]:
    """Build ESRGAN's generator, of 23 RRDBs unless the config says another number, and the discriminator."""
    blocks: list[nn.Module] = [RRDB(model.width) for _ in range(model.blocks or 23)]
    return _networks(Generator(data.channels, model.width, factor, blocks, norm=False), model, data)


def _networks(generator: nn.Module, model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    discriminator = Discriminator(data.image_size, data.channels, model.width, model.spectral_norm)
    if model.spectral_norm:
        normalise_spectrally(discriminator)
    return {"generator": generator, "discriminator": discriminator}
