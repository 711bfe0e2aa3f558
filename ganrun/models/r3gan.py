"""Networks of R3GAN without normalisation layers (Huang et al. 2024, arXiv:2501.05441, config E).

Written from the text of the paper: section 3 for the layers, appendix D and table 9 for widths and classes. With equal
weights the outputs are those of the authors' networks: the filter sees zeros beyond the border, and the blocks at 4x4
are computed in the precision of the weights within autocast, too.

Shapes: B batch, Z latent size, K classes, C image channels, S image size, W `model.width`. Channels are W at S x S,
double at each halving down to 32 x 32 and then stay. Table 9: W = 768 at S = 32, 384 at 64, 96 at 256, all with Z = 64.

With pictures [B, C', S, S] as condition, which the paper does not have, an encoder of the discriminator's layers halves
them to 4x4. Its features are added to those of the generator at each resolution, as in a U-Net. The discriminator sees
the pictures joined to the image.

With a sentence, which the paper does not have either, the projection of its embedding takes the place of the embedded
class: joined to z it modulates the generator's basis, and D(x, c) = project(c) . D'(x).
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.given import Given, label_of, pictures_of, with_pictures
from ganrun.models.precision import full_precision
from ganrun.models.text import TextInput, TextProjection
from ganrun.rng import KeyedNoise

BLOCKS = 2
"""Residual blocks at each resolution."""
EXPANSION = 2
"""Channels of the grouped convolution per channel of the block (inverted bottleneck)."""
GROUP = 16
"""Channels per group of the grouped convolution."""
BOTTOM = 4
"""Lowest resolution in pixels."""
SLOPE = 0.2
"""Negative slope of the leaky ReLUs."""


def widths(image_size: int, width: int) -> list[int]:
    """Return the channels at 4x4, 8x8, ..., S x S."""
    sizes = [2**power for power in range(2, image_size.bit_length())]
    return [width * max(image_size // max(size, 32), 1) for size in sizes]


class Block(nn.Module):
    """x + conv1x1(leaky(grouped_conv3x3(leaky(conv1x1(x))))). The last convolution has no bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.grouped = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden // GROUP)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        y = F.leaky_relu(self.expand(x), SLOPE)
        return x + self.project(F.leaky_relu(self.grouped(y), SLOPE))  # type: ignore[no-any-return]


class Transition(nn.Module):
    """Bilinear resampling by a factor of 2 or 0.5, with a 1x1 convolution if the number of channels changes."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', scale H, scale W]."""
        # A 1x1 convolution without bias commutes with resampling, so it runs at the lower resolution.
        return _resample(self.conv(x), 2.0) if self.scale > 1 else self.conv(_resample(x, 0.5))


class Encoder(nn.Module):
    """Images [B, C, S, S] -> features [B, W, S, S], ... [B, C', 4, 4] at each resolution."""

    def __init__(self, plan: list[int], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, plan[0], 1, bias=False)]
        for inputs, outputs in pairwise(plan):
            layers += [*(Block(inputs) for _ in range(BLOCKS)), Transition(inputs, outputs, 0.5)]
        layers += [Block(plan[-1]) for _ in range(BLOCKS)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of the last block at each resolution, the highest first."""
        return features_of(self.layers, images)


def features_of(layers: nn.Sequential, images: Tensor) -> list[Tensor]:
    """Return the features of the last block at each resolution."""
    x, found = images, []
    for layer in layers:
        if isinstance(layer, Transition):
            found.append(x)
        x = _applied(layer, x)
    return [*found, x]


def _applied(layer: nn.Module, x: Tensor) -> Tensor:
    """Return layer(x), at the lowest resolution in the precision of the weights."""
    if isinstance(layer, Transition) or x.shape[-1] > BOTTOM:
        return layer(x)  # type: ignore[no-any-return]
    with full_precision(x.device):
        return layer(x.to(next(layer.parameters()).dtype))  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Noise z [B, Z] and a condition: labels [B], pictures [B, C', S, S] or embeddings -> images [B, C, S, S].

    They lie around [-1, 1], unbounded: no tanh (section 3, e).

    Args:
        image_size, channels, width, latent_size, classes: S, C, W, Z, K.
        pictures: channels of the condition's pictures by name.
        text: embeddings of the condition; None: there are none.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        latent_size: int,
        classes: int,
        pictures: Mapping[str, int],
        text: TextInput | None = None,
    ) -> None:
        super().__init__()
        self.pictures, plan = tuple(pictures), widths(image_size, width)
        self.embedding = nn.Embedding(classes, latent_size) if classes else None
        self.basis = nn.Parameter(torch.empty(plan[0], BOTTOM, BOTTOM))
        self.text = TextProjection(text, text.augmented) if text else None
        inputs = latent_size * (2 if classes else 1) + (text.projected if text else 0)
        self.modulation = nn.Linear(inputs, plan[0], bias=False)
        layers: list[nn.Module] = [Block(plan[0]) for _ in range(BLOCKS)]
        for inputs, outputs in pairwise(plan):
            layers += [Transition(inputs, outputs, 2.0), *(Block(outputs) for _ in range(BLOCKS))]
        self.layers = nn.Sequential(*layers, nn.Conv2d(plan[-1], channels, 1, bias=False))
        self.encoder = Encoder(plan[::-1], sum(pictures.values())) if pictures else None

    def forward(self, z: Tensor, given: Given | Tensor | None = None, noise: KeyedNoise | None = None) -> Tensor:
        """Return images; with classes or a sentence z' = concat(z, embed(c)) replaces z (appendix D)."""
        if self.text is not None:
            z = torch.cat([z, self.text(given, noise).to(z.dtype)], dim=1)
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(label_of(given)).to(z.dtype)], dim=1)
        with full_precision(z.device):
            x: Tensor = self.basis * self.modulation(z)[:, :, None, None]
        features = self.encoder(pictures_of(given, self.pictures)) if self.encoder else []
        x = x + features.pop() if features else x
        for layer in self.layers:
            x = _applied(layer, x)
            if features and isinstance(layer, Transition):
                x = x + features.pop()
        return x


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] and a condition, as for the generator -> logits [B], above 0 for real."""

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        classes: int,
        pictures: Mapping[str, int],
        text: TextInput | None = None,
    ) -> None:
        super().__init__()
        self.pictures, plan = tuple(pictures), widths(image_size, width)[::-1]
        encoder = Encoder(plan, channels + sum(pictures.values()))
        self.layers = encoder.layers.append(nn.Conv2d(plan[-1], plan[-1], BOTTOM, groups=plan[-1], bias=False))
        self.text = TextProjection(text) if text else None
        outputs = text.projected if text else plan[-1] if classes else 1
        self.linear = nn.Linear(plan[-1], outputs, bias=False)
        self.embedding = nn.Embedding(classes, plan[-1]) if classes else None

    def intermediate(self, images: Tensor, given: Given | Tensor | None = None) -> list[Tensor]:
        """Return the features at each resolution, a list of [B, C', H, W]; the last is the input of the last layer."""
        return features_of(self.layers, with_pictures(images, given, self.pictures))

    def features(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return the input of the last layer, [B, C']. It does not depend on the label."""
        return self.intermediate(images, given)[-1].flatten(1)

    def forward(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return logits [B]; with classes or a sentence D(x) = embed(c) . D'(x) (appendix D)."""
        features = self.features(images, given)
        with full_precision(images.device):
            outputs: Tensor = self.linear(features)
            if self.text is not None:
                logits: Tensor = (self.text(given) * outputs).sum(1) / outputs.shape[1] ** 0.5
                return logits
        return outputs.squeeze(1) if self.embedding is None else (self.embedding(label_of(given)) * outputs).sum(1)


def r3gan(
    model: ModelConfig,
    data: DataConfig,
    pictures: Mapping[str, int] = MappingProxyType({}),
    text: TextInput | None = None,
) -> dict[str, nn.Module]:
    """Build generator and discriminator."""
    size, channels, width, classes = data.image_size, data.channels, model.width, model.classes
    networks: dict[str, nn.Module] = {
        "generator": Generator(size, channels, width, model.latent_size, classes, pictures, text),
        "discriminator": Discriminator(size, channels, width, classes, pictures, text),
    }
    for network in networks.values():
        _initialise(network)
    return networks


def _resample(x: Tensor, scale: float) -> Tensor:
    """Resample with the filter (1, 3, 3, 1) on each axis and zeros beyond the border.

    Up it is bilinear interpolation, and down the antialiased one, of the picture with a margin of zeros.
    """
    # antialias=True is not implemented for bf16 on the CPU.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    margin, cut = (1, 2) if scale > 1 else (2, 1)
    framed = F.pad(wide, (margin,) * 4)
    resampled = F.interpolate(framed, scale_factor=scale, mode="bilinear", antialias=scale < 1)
    return resampled[..., cut:-cut, cut:-cut].to(x.dtype)


def _initialise(network: nn.Module) -> None:
    """Fixup initialisation, which replaces normalisation (Zhang, Dauphin & Ma 2019, arXiv:1901.09321).

    Weights have variance gain^2 / fan_in (He et al. 2015, arXiv:1502.01852). The last convolution of each residual
    block starts at 0, the two before it are scaled by L^-0.25 with L the number of blocks.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    for block in blocks:
        for conv in (block.expand, block.grouped):
            nn.init.kaiming_normal_(conv.weight, SLOPE)
            conv.weight.data.mul_(len(blocks) ** -0.25)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(block.project.weight)
    if isinstance(network, Generator):
        nn.init.normal_(network.basis)
    elif isinstance(network, Discriminator) and network.embedding is not None:
        # Variance 1 / C': the dot product over C' features then has the scale of one of them.
        nn.init.normal_(network.embedding.weight, 0.0, network.embedding.embedding_dim**-0.5)
