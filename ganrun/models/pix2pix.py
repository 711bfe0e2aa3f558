"""U-Net and 70x70 PatchGAN of pix2pix (Isola et al. 2017, arXiv:1611.07004, section 6.1): a picture to a picture.

Shapes: B batch, C' channels of the condition's pictures, C image channels, S image size (a power of two), W
`model.width` (the paper: 64). Channels are W, 2 W, 4 W and then 8 W, as the resolution halves.

The only noise is dropout, in sampling too; there is no z. Where the paper has batch norm, here each image is normalised
by its own statistics (instance norm), in sampling too: the paper does the same, since its batches have one image and
batch norm keeps their statistics at inference. So a result does not depend on the other images of a batch.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.dropout import dropout
from ganrun.models.given import Given, pictures_of, with_pictures
from ganrun.models.spectral_norm import normalise_spectrally
from ganrun.rng import KeyedNoise

SLOPE = 0.2
"""Negative slope of the leaky ReLUs."""
DROPPED_BLOCKS, DROPPED_SHARE = 3, 0.5
"""Blocks of the decoder with dropout, from the bottom, and the share that it drops."""


class Up(nn.Module):
    """[B, C, H, W] -> [B, C', 2H, 2W] by a transposed convolution, or by nearest neighbours and a convolution.

    The second has no checkerboards (Odena et al. 2016, "Deconvolution and checkerboard artifacts").
    """

    def __init__(self, inputs: int, outputs: int, resize: bool, bias: bool = False) -> None:
        super().__init__()
        self.resize = resize
        self.conv: nn.Module = (
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=bias)
            if resize
            else nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at twice the resolution."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2) if self.resize else x)
        return y


class Generator(nn.Module):
    """Pictures [B, C', S, S] -> images [B, C, S, S] in [-1, 1]: halved to 1x1 and back, with skips at each resolution.

    Args:
        image_size: S.
        pictures: channels of the condition's pictures by name.
        channels: C.
        width: W.
        resize: upsample by resize-convolutions.
    """

    def __init__(self, image_size: int, pictures: Mapping[str, int], channels: int, width: int, resize: bool) -> None:
        super().__init__()
        self.pictures = tuple(pictures)
        plan = [width * min(2**number, 8) for number in range(image_size.bit_length() - 1)]
        self.first = nn.Conv2d(sum(pictures.values()), plan[0], 4, 2, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(plan))
        # The features at 1x1 are not normalised: the statistics of one pixel would leave nothing of it.
        self.down_norms = nn.ModuleList(_norm(width) for width in plan[1:-1])
        above = [plan[-1], *(2 * width for width in plan[-2:0:-1])]  # With the skip from the same resolution.
        self.up = nn.ModuleList(Up(a, b, resize) for a, b in zip(above, plan[-2::-1], strict=True))
        self.up_norms = nn.ModuleList(_norm(width) for width in plan[-2::-1])
        self.last = Up(2 * plan[0], channels, resize, bias=True)

    def forward(self, given: Given, noise: KeyedNoise) -> Tensor:
        """Return images [B, C, S, S] for the pictures of a condition."""
        skips = [self.first(pictures_of(given, self.pictures))]
        for number, conv in enumerate(self.down):
            y = conv(F.leaky_relu(skips[-1], SLOPE))
            skips.append(self.down_norms[number](y) if number < len(self.down_norms) else y)
        x = skips.pop()
        for number, (conv, norm) in enumerate(zip(self.up, self.up_norms, strict=True)):
            x = norm(conv(F.relu(x)))
            if number < DROPPED_BLOCKS:
                x = dropout(x, DROPPED_SHARE, noise, f"dropout/{number}")
            x = torch.cat([x, skips.pop()], dim=1)
        return torch.tanh(self.last(F.relu(x)))


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] and pictures [B, C', S, S] -> a map of logits [B, H, W], above 0 for real.

    Each logit sees 70x70 pixels. `spectral_norm` replaces instance norm, whose gain would undo the Lipschitz bound.
    """

    def __init__(self, pictures: Mapping[str, int], channels: int, width: int, spectral_norm: bool) -> None:
        super().__init__()
        self.pictures = tuple(pictures)
        plan = [channels + sum(pictures.values()), width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(plan)):
            normalised = number > 0 and not spectral_norm
            conv = nn.Conv2d(inputs, outputs, 4, 2 if number < 3 else 1, 1, bias=not normalised)
            parts = [conv, *([_norm(outputs)] if normalised else []), nn.LeakyReLU(SLOPE, True)]
            layers.append(nn.Sequential(*parts))
        self.layers, self.last = nn.Sequential(*layers), nn.Conv2d(8 * width, 1, 4, 1, 1)

    def intermediate(self, images: Tensor, given: Given) -> list[Tensor]:
        """Return the features of all layers but the last, a list of [B, C'', H', W']."""
        x = with_pictures(images, given, self.pictures)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features

    def features(self, images: Tensor, given: Given) -> Tensor:
        """Return the input of the last layer, [B, 8 W, H', W']."""
        return self.intermediate(images, given)[-1]

    def forward(self, images: Tensor, given: Given) -> Tensor:
        """Return the map of logits [B, H, W]."""
        logits: Tensor = self.last(self.features(images, given))
        return logits.squeeze(1)


def pix2pix(model: ModelConfig, data: DataConfig, pictures: Mapping[str, int]) -> dict[str, nn.Module]:
    """Build generator and discriminator, with weights from N(0, 0.02^2)."""
    networks: dict[str, nn.Module] = {
        "generator": Generator(data.image_size, pictures, data.channels, model.width, model.resize_convolution),
        "discriminator": Discriminator(pictures, data.channels, model.width, model.spectral_norm),
    }
    for network in networks.values():
        network.apply(_initialise)
    if model.spectral_norm:
        normalise_spectrally(networks["discriminator"])
    return networks


def _norm(channels: int) -> nn.GroupNorm:
    """Return instance norm, as a group for each channel: unlike nn.InstanceNorm2d it keeps the memory's layout."""
    return nn.GroupNorm(channels, channels)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
