"""Networks of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, configuration F), written from the paper.

Shapes: B batch, Z size of z and of w (`model.latent_size`), K classes, C image channels, S image size, L layers that
take a w, W `model.width`. Channels are W at S x S and double at each halving, up to 512: W = 32 at S = 1,024, 128 at
256 and 512 at 64 or less are the paper's; half of these is what Karras et al. 2020 (arXiv:2006.06676) take up to 256.

Images are unbounded and lie around [-1, 1]. With class labels, which the paper does not have, the normalised embedding
of the class is joined to z, and the discriminator projects its features on a mapping of the class (arXiv:2006.06676,
appendix C).
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.equalised import Blur, EqualisedConv, EqualisedLinear, leaky
from ganrun.models.given import Given, label_of
from ganrun.models.minibatch_stddev import MinibatchStddev
from ganrun.models.one_hot import one_hot
from ganrun.models.precision import full_precision
from ganrun.models.slot_statistics import RunningMean
from ganrun.rng import KeyedNoise

BOTTOM = 4
"""Lowest resolution in pixels."""
MOST_CHANNELS = 512
"""Channels of the low resolutions, unless the width is more."""
MAPPING_LAYERS, MAPPING_RATE = 8, 0.01
"""Layers of a mapping network unless `model.blocks` says another number; multiplier of their learning rate."""
W_MOMENTUM = 0.005
"""Weight of a round in the running mean of w."""
EPSILON = 1e-8


def channels_of(image_size: int, width: int) -> list[int]:
    """Return the channels at 4x4, 8x8, ..., S x S."""
    sizes = [2**power for power in range(2, image_size.bit_length())]
    return [min(width * (image_size // size), max(width, MOST_CHANNELS)) for size in sizes]


def normalised(x: Tensor) -> Tensor:
    """Scale each row of [B, N] to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()


class Mapping(nn.Module):
    """Fully connected layers from z [B, Z], the class, or both to w [B, Z].

    Args:
        size: Z.
        classes: K; 0: no classes.
        layers: number of layers.
        with_z: it takes z; else the class alone.
    """

    def __init__(self, size: int, classes: int, layers: int, with_z: bool = True) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = EqualisedLinear(classes, size) if classes else None
        sizes = [size * (with_z + bool(classes)), *[size] * layers]
        self.layers = nn.ModuleList(EqualisedLinear(*each, rate=MAPPING_RATE) for each in pairwise(sizes))

    def forward(self, z: Tensor | None, label: Tensor | None) -> Tensor:
        """Return w in the precision of the weights."""
        weight = next(self.parameters())
        with full_precision(weight.device):
            parts = [] if z is None else [normalised(z.to(weight.dtype))]
            if self.embedding is not None:
                assert label is not None
                parts.append(normalised(self.embedding(one_hot(label, self.classes, weight.dtype))))
            x = torch.cat(parts, 1)
            for layer in self.layers:
                x = leaky(layer(x))
        return x


class ModulatedConv(nn.Module):
    """Convolution whose weights are scaled for each image by its style (section 2.2).

    With input channels i, output channels o and the style s, the weights w_oik s_i are divided by their norm for each
    o (demodulation), so that outputs have unit variance for inputs that have it. Scaling inputs by s_i and outputs by
    1 / norm_o is the same, needs no weights of its own for each image, and is faster on a CPU than a grouped
    convolution.

    Args:
        inputs, outputs: channels I and O.
        kernel: size of the kernel.
        size: Z of w.
        doubles: at twice the resolution: a transposed convolution, then the filter (1, 3, 3, 1).
        demodulated: divide by the norm.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, size: int, doubles: bool = False, demodulated: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualisedLinear(size, inputs, bias=1.0)
        self.gain = 1.0 if demodulated else 1 / math.sqrt(inputs * kernel**2)
        self.demodulated, self.padding, self.blur = demodulated, kernel // 2, Blur() if doubles else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [B, I, H, W] and w [B, Z] to [B, O, H, W], or at twice the resolution."""
        with full_precision(x.device):
            style = self.style(w) * self.gain
            squares = self.weight.square().sum((2, 3))
            scale = (F.linear(style.square(), squares) + EPSILON).rsqrt() if self.demodulated else None
        y = self._convolved(x * style[:, :, None, None].to(x.dtype))
        return y if scale is None else y * scale[:, :, None, None].to(y.dtype)

    def _convolved(self, x: Tensor) -> Tensor:
        if self.blur is None:
            return F.conv2d(x, self.weight, padding=self.padding)
        large = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)  # [B, O, 2H + 1, 2W + 1]
        return self.blur(large, padding=1) * 4  # type: ignore[no-any-return]


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU.

    One plane of noise N(0, 1) is added to all channels of an image, times a strength that is learned from 0 on.
    """

    def __init__(self, inputs: int, outputs: int, size: int, doubles: bool, name: str) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, size, doubles)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.name = f"noise/{name}"

    def forward(self, x: Tensor, w: Tensor, noise: KeyedNoise | None) -> Tensor:
        """Map [B, I, H, W] and w [B, Z] to [B, O, H, W], or at twice the resolution."""
        x = self.conv(x, w)
        if noise is not None:
            # shape[0], not len(x): an exported program takes any number of images.
            plane = noise.normal(x.shape[0], 1, *x.shape[2:], name=self.name)
            x = x + (plane * self.strength).to(x.dtype)
        return leaky(x + self.bias[:, None, None].to(x.dtype))


class Resolution(nn.Module):
    """Layers of the generator at one resolution, and the picture that they add to that of the resolutions below.

    Args:
        inputs, outputs: channels; 0 inputs: the first resolution, which begins with learned numbers.
        channels: C.
        size: Z of w.
        pixels: height and width.
    """

    def __init__(self, inputs: int, outputs: int, channels: int, size: int, pixels: int) -> None:
        super().__init__()
        self.start = None if inputs else nn.Parameter(torch.randn(outputs, pixels, pixels))
        first = [StyledLayer(inputs, outputs, size, True, f"{pixels}/0")] if inputs else []
        self.layers = nn.ModuleList([*first, StyledLayer(outputs, outputs, size, False, f"{pixels}/1")])
        self.picture = ModulatedConv(outputs, channels, 1, size, demodulated=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.blur = Blur()

    def forward(
        self, x: Tensor | None, images: Tensor | None, w: Tensor, noise: KeyedNoise | None
    ) -> tuple[Tensor, Tensor]:
        """Return features and images of this resolution, for those of the one below and w [B, len(layers) + 1, Z]."""
        if self.start is not None:
            x = self.start.expand(w.shape[0], *self.start.shape)
        for number, layer in enumerate(self.layers):
            x = layer(x, w[:, number], noise)
        assert x is not None
        picture = self.picture(x, w[:, len(self.layers)])
        # Sums of images are not rounded to bf16.
        picture = picture.to(torch.promote_types(picture.dtype, torch.float32)) + self.bias[:, None, None]
        with full_precision(x.device):
            return x, picture if images is None else self.blur.enlarge(images) + picture


class Generator(nn.Module):
    """Noise z [B, Z] and labels [B] -> images [B, C, S, S]. A `style.StyleGenerator`.

    Args:
        image_size, channels, width, latent_size, classes: S, C, W, Z, K.
        mapping_layers: layers of the mapping network.
    """

    def __init__(
        self, image_size: int, channels: int, width: int, latent_size: int, classes: int, mapping_layers: int
    ) -> None:
        super().__init__()
        plan = [0, *channels_of(image_size, width)]
        self.to_w = Mapping(latent_size, classes, mapping_layers)
        self.w_average = RunningMean(latent_size, W_MOMENTUM)
        self.resolutions = nn.ModuleList(
            Resolution(inputs, outputs, channels, latent_size, BOTTOM << number)
            for number, (inputs, outputs) in enumerate(pairwise(plan))
        )
        self.w_size, self.layers, self.truncation = latent_size, 2 * len(self.resolutions), 1.0

    def forward(self, z: Tensor, given: Given | Tensor | None = None, noise: KeyedNoise | None = None) -> Tensor:
        """Return images; all layers take the same w."""
        w = self.truncated(self.mapping(z, given))
        return self.synthesis(w[:, None].expand(-1, self.layers, -1), noise)

    def mapping(self, z: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return w [B, Z]. In the generator's own turn its mean moves."""
        w: Tensor = self.to_w(z, label_of(given))
        self.w_average(w)
        return w

    def truncated(self, w: Tensor) -> Tensor:
        """Return w_mean + psi (w - w_mean) for w [B, Z] (arXiv:1812.04948, appendix B)."""
        return w if self.truncation == 1 else torch.lerp(self.w_average.mean, w, self.truncation)

    def synthesis(self, w: Tensor, noise: KeyedNoise | None = None) -> Tensor:
        """Return images for w of each layer [B, L, Z].

        The picture of a resolution takes the same w as the first layer of the next one.
        """
        x: Tensor | None = None
        images: Tensor | None = None
        for resolution, part in zip(self.resolutions, self._parts(w), strict=True):
            x, images = resolution(x, images, part, noise)
        assert images is not None
        return images

    def _parts(self, w: Tensor) -> Iterator[Tensor]:
        begin = 0
        for resolution in self.resolutions:
            yield w[:, begin : begin + len(resolution.layers) + 1]  # type: ignore[arg-type]
            begin += len(resolution.layers)  # type: ignore[arg-type]


class Halving(nn.Module):
    """Two convolutions to half the resolution, and a residual connection (section 4.1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = EqualisedConv(inputs, inputs, 3), EqualisedConv(inputs, outputs, 3, halves=True)
        self.skip = EqualisedConv(inputs, outputs, 1, halves=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I, H, W] to [B, O, H / 2, W / 2]; the sum of both ways is scaled to the variance of one."""
        both: Tensor = leaky(self.second(leaky(self.first(x)))) + self.skip(x)
        return both / math.sqrt(2)


class Discriminator(nn.Module):
    """Images [B, C, S, S] and labels [B] -> logits [B], above 0 for real."""

    def __init__(self, image_size: int, channels: int, width: int, classes: int) -> None:
        super().__init__()
        plan = channels_of(image_size, width)[::-1]
        last = plan[-1]
        self.from_picture = EqualisedConv(channels, plan[0], 1)
        self.layers = nn.Sequential(*(Halving(*each) for each in pairwise(plan)))
        self.stddev, self.conv = MinibatchStddev(), EqualisedConv(last + 1, last, 3)
        self.linear = EqualisedLinear(last * BOTTOM**2, last)
        self.to_w = Mapping(last, classes, MAPPING_LAYERS, with_z=False) if classes else None
        self.last = EqualisedLinear(last, last if classes else 1)

    def features(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return the input of the last layer, [B, N]. It does not depend on the label."""
        x = self.layers(leaky(self.from_picture(images)))
        with full_precision(images.device):  # At 4x4, too, the authors compute in float32.
            x = self.stddev(x.to(self.conv.weight.dtype))
            return leaky(self.linear(leaky(self.conv(x)).flatten(1)))

    def forward(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return logits; with classes D(x, c) = D'(x) . mapping(c) / sqrt(N)."""
        features = self.features(images, given)
        with full_precision(images.device):
            outputs: Tensor = self.last(features)
            if self.to_w is None:
                return outputs.squeeze(1)
            logits: Tensor = (outputs * self.to_w(None, label_of(given))).sum(1) / math.sqrt(outputs.shape[1])
            return logits


def stylegan2(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build generator and discriminator."""
    size, channels, width, classes = data.image_size, data.channels, model.width, model.classes
    layers = model.blocks or MAPPING_LAYERS
    return {
        "generator": Generator(size, channels, width, model.latent_size, classes, layers),
        "discriminator": Discriminator(size, channels, width, classes),
    }
