"""Residual networks of SNGAN (Miyato et al. 2018, arXiv:1802.05957, appendix B.4, tables 4 to 6).

They resemble those of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028). The discriminator has no batch norm, which
would make a per-image gradient penalty invalid (Gulrajani et al., section 4), and optional spectral norm. With classes
the generator has conditional batch norm and the discriminator is a projection discriminator (Miyato & Koyama 2018,
arXiv:1802.05637).

Shapes: B batch, Z latent size, K classes, C image channels, S image size, W `model.width`. Table 4: S = 32, W = 128;
table 5: S = 48, W = 64; table 6: S = 128, W = 64.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.minibatch_stddev import MinibatchStddev
from ganrun.models.normalization import SlotBatchNorm2d, SlotConditionalBatchNorm2d
from ganrun.models.spectral_norm import normalise_spectrally

WIDEST = 16
"""Maximum number of channels, as a multiple of W."""


def generator_plan(image_size: int) -> tuple[int, tuple[int, ...]]:
    """Return the size of the first feature map, and the channels there and after each upsampling, in multiples of W."""
    if image_size == 32:
        return 4, (2, 2, 2, 2)
    bottom = 6 if image_size % 3 == 0 else 4
    doublings = round(math.log2(image_size / bottom))
    return bottom, tuple(min(2**number, WIDEST) for number in range(doublings, -1, -1))


def discriminator_plan(image_size: int) -> tuple[tuple[int, bool], ...]:
    """Return (channels in multiples of W, True if it downsamples) of each block."""
    if image_size == 32:
        return (1, True), (1, True), (1, False), (1, False)
    halvings = round(math.log2(image_size / (3 if image_size % 3 == 0 else 4)))
    widths = [min(2**number, WIDEST) for number in range(halvings + 1)]
    return (*((width, True) for width in widths[:-1]), (widths[-1], False))


class UpBlock(nn.Module):
    """[B, C, H, W] -> [B, C', 2H, 2W]: up(conv1x1(x)) + conv(relu(norm(conv(up(relu(norm(x))))))) (figure 8)."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs, classes), nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.norm2, self.conv2 = _norm(outputs, classes), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Return the upsampled features. Labels int64 [B] select the gains of conditional batch norm."""
        # The shortcut's 1x1 convolution runs before upsampling: same values, a quarter of the work.
        y = _double(F.relu(_normalise(self.norm1, x, label)))
        y = F.relu(_normalise(self.norm2, self.conv1(y), label))
        return self.conv2(y) + _double(self.shortcut(x))  # type: ignore[no-any-return]


class DownBlock(nn.Module):
    """[B, C, H, W] -> [B, C', H / 2, W / 2], or [B, C', H, W] if not `halves`.

    The first block has no ReLU before its first convolution: it would zero all negative pixels.
    """

    def __init__(self, inputs: int, outputs: int, halves: bool, first: bool = False) -> None:
        super().__init__()
        self.halves, self.first = halves, first
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return shortcut(pool(x)) + pool(conv(relu(conv(relu(x)))))."""
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halves:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return y + self.shortcut(x)  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Noise z [B, Z] (and labels [B]) -> images [B, C, S, S] in [-1, 1]."""

    def __init__(self, image_size: int, channels: int, width: int, latent_size: int, classes: int) -> None:
        super().__init__()
        self.bottom, widths = generator_plan(image_size)
        plan = [width * each for each in widths]
        self.dense = nn.Linear(latent_size, plan[0] * self.bottom**2)
        self.blocks = nn.ModuleList(UpBlock(inputs, outputs, classes) for inputs, outputs in pairwise(plan))
        self.norm, self.last = SlotBatchNorm2d(plan[-1]), nn.Conv2d(plan[-1], channels, 3, 1, 1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return images [B, C, S, S] for z [B, Z] and labels int64 [B]."""
        x = self.dense(z).unflatten(1, (-1, self.bottom, self.bottom))
        for block in self.blocks:
            x = block(x, label)
        return torch.tanh(self.last(F.relu(self.norm(x))))


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] (and labels [B]) -> logits [B], above 0 for real."""

    def __init__(self, image_size: int, channels: int, width: int, classes: int, minibatch_stddev: bool) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        *firsts, (widest, halves) = discriminator_plan(image_size)
        for each, halved in firsts:
            blocks.append(DownBlock(channels, width * each, halved, first=not blocks))
            channels = width * each
        if minibatch_stddev:
            blocks.append(MinibatchStddev())
        blocks.append(DownBlock(channels + minibatch_stddev, width * widest, halves))
        self.blocks, self.dense = nn.Sequential(*blocks), nn.Linear(width * widest, 1)
        self.embedding = nn.Embedding(classes, width * widest) if classes else None

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the input of the last layer, [B, C'], sum-pooled over pixels. It does not depend on the label."""
        features: Tensor = F.relu(self.blocks(images)).sum((2, 3))
        return features

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits psi(phi(x)) + y^T V phi(x), [B] (Miyato & Koyama 2018). Without classes only the first term."""
        features = self.features(images, label)
        logits: Tensor = self.dense(features).squeeze(1)
        if self.embedding is None:
            return logits
        projection: Tensor = self.embedding(label) * features
        return logits + projection.sum(1)


def resnet(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build generator and discriminator, with Glorot initialisation; gain sqrt(2) in residual branches with ReLU."""
    size, channels = data.image_size, data.channels
    networks: dict[str, nn.Module] = {
        "generator": Generator(size, channels, model.width, model.latent_size, model.classes),
        "discriminator": Discriminator(size, channels, model.width, model.classes, model.minibatch_stddev),
    }
    for network in networks.values():
        network.apply(_initialise)
    if model.spectral_norm:
        normalise_spectrally(networks["discriminator"])
    return networks


def _norm(channels: int, classes: int) -> SlotBatchNorm2d:
    return SlotConditionalBatchNorm2d(channels, classes) if classes else SlotBatchNorm2d(channels)


def _normalise(norm: SlotBatchNorm2d, x: Tensor, label: Tensor | None) -> Tensor:
    y: Tensor = norm(x) if label is None else norm(x, label)
    return y


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        inside = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2) if inside else 1.0)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, nn.Embedding):
        nn.init.xavier_uniform_(module.weight)
