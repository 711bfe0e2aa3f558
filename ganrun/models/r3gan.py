"""R3GAN's networks without normalisation (Huang et al. 2024, arXiv:2501.05441, config E), from the paper's text:
section 3 for the layers, appendix D and table 9 for widths and classes.

Shapes: B batch, Z latent size, K classes, C channels of the image, S its size, W width. Channels double from W at
S x S down to 32 x 32 and stay so. Table 9: W = 768 at S = 32, 384 at 64, 96 at 256, with Z = 64.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig

BLOCKS = 2
"""Residual blocks at each resolution."""
EXPANSION = 2
"""Channels of the grouped convolution, in those of the stem (the inverted bottleneck)."""
GROUP = 16
"""Channels of a group."""
BOTTOM = 4
SLOPE = 0.2


def widths(image_size: int, width: int) -> list[int]:
    """Channels at 4x4, 8x8 and so on to S x S."""
    sizes = [2**power for power in range(2, image_size.bit_length())]
    return [width * max(image_size // max(size, 32), 1) for size in sizes]


class Block(nn.Module):
    """x + conv1x1(leaky(grouped conv3x3(leaky(conv1x1(x))))), the last convolution without a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.grouped = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden // GROUP)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        y = F.leaky_relu(self.expand(x), SLOPE)
        return x + self.project(F.leaky_relu(self.grouped(y), SLOPE))  # type: ignore[no-any-return]


class Transition(nn.Module):
    """Bilinear resampling to twice or half the size, and a 1x1 convolution where the channels differ."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The convolution works on the smaller image: the two commute."""
        return _resample(self.conv(x), 2.0) if self.scale > 1 else self.conv(_resample(x, 0.5))


class Generator(nn.Module):
    """Noise z [B, Z] (and labels [B]) -> images [B, C, S, S] around [-1, 1]: there is no tanh (section 3, e)."""

    def __init__(self, image_size: int, channels: int, width: int, latent_size: int, classes: int) -> None:
        super().__init__()
        plan = widths(image_size, width)
        self.embedding = nn.Embedding(classes, latent_size) if classes else None
        self.basis = nn.Parameter(torch.empty(plan[0], BOTTOM, BOTTOM))
        self.modulation = nn.Linear(latent_size * (2 if classes else 1), plan[0], bias=False)
        layers: list[nn.Module] = [Block(plan[0]) for _ in range(BLOCKS)]
        for inputs, outputs in pairwise(plan):
            layers += [Transition(inputs, outputs, 2.0), *(Block(outputs) for _ in range(BLOCKS))]
        self.layers = nn.Sequential(*layers, nn.Conv2d(plan[-1], channels, 1, bias=False))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images for the noise; with classes z' = concat(z, embed(c)) (appendix D)."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(label).to(z.dtype)], dim=1)
        images: Tensor = self.layers(self.basis * self.modulation(z)[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] (and labels [B]) -> logits [B], above 0 for real."""

    def __init__(self, image_size: int, channels: int, width: int, classes: int) -> None:
        super().__init__()
        plan = widths(image_size, width)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(channels, plan[0], 1, bias=False)]
        for inputs, outputs in pairwise(plan):
            layers += [*(Block(inputs) for _ in range(BLOCKS)), Transition(inputs, outputs, 0.5)]
        layers += [Block(plan[-1]) for _ in range(BLOCKS)]
        layers.append(nn.Conv2d(plan[-1], plan[-1], BOTTOM, groups=plan[-1], bias=False))
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(plan[-1], plan[-1] if classes else 1, bias=False)
        self.embedding = nn.Embedding(classes, plan[-1]) if classes else None

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """What the last layer sees, [B, C']; the label does not enter."""
        features: Tensor = self.layers(images).flatten(1)
        return features

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """One logit an image; with classes D(x) = embed(c) . D'(x) (appendix D)."""
        outputs: Tensor = self.linear(self.features(images, label))
        return outputs.squeeze(1) if self.embedding is None else (self.embedding(label) * outputs).sum(1)


def r3gan(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """The pair."""
    networks: dict[str, nn.Module] = {
        "generator": Generator(data.image_size, data.channels, model.width, model.latent_size, model.classes),
        "discriminator": Discriminator(data.image_size, data.channels, model.width, model.classes),
    }
    for network in networks.values():
        _initialise(network)
    return networks


def _resample(x: Tensor, scale: float) -> Tensor:
    """Bilinear; to half the size with the filter widened to (1, 3, 3, 1) / 8 on each axis, so that nothing aliases."""
    # PyTorch has no widened filter for bf16 on the CPU.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(wide, scale_factor=scale, mode="bilinear", antialias=scale < 1).to(x.dtype)


def _initialise(network: nn.Module) -> None:
    """Keeps variances without normalisation (Fixup: Zhang, Dauphin & Ma 2019, arXiv:1901.09321).

    Weights are of variance gain^2 / inputs (He et al. 2015, arXiv:1502.01852). Of each residual block the last
    convolution begins as 0, the two before it are scaled by L^-0.25, where L is the number of blocks.
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
        # So that the product over C' numbers is of the size of one.
        nn.init.normal_(network.embedding.weight, 0.0, network.embedding.embedding_dim**-0.5)
