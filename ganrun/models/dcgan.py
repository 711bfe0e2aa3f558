"""DCGAN (Radford, Metz & Chintala 2016, arXiv:1511.06434), for image sizes that are powers of two.

Shapes: B batch, Z latent size, K classes, C image channels, S image size, W `model.width` (channels of the layers next
to the image). Each halving of the resolution doubles the channels. S = 64 with W = 128 gives the generator of figure 1:
1024 channels at 4x4 down to 128 at 32x32.

With classes it is the conditional GAN of Mirza & Osindero 2014 (arXiv:1411.1784): the one-hot label is concatenated to
z in the generator, and as K constant planes to the image in the discriminator. A linear layer over a concatenation is
the sum of a layer over each part, so this adds a learned embedding of the label to the output of the first layer.

With pictures [B, C', S, S] an encoder of the discriminator's layers halves them to 4x4. Its features are added to those
of the generator at each resolution, as in a U-Net. The discriminator sees the pictures joined to the image.

With a sentence (Reed et al. 2016, arXiv:1605.05396, section 4.1) the projection of its embedding is joined to z, and as
planes to the discriminator's features at 4x4, which a 1x1 convolution mixes.
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.given import Given, label_of, pictures_of, with_pictures
from ganrun.models.minibatch_stddev import MinibatchStddev
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.models.one_hot import one_hot
from ganrun.models.spectral_norm import normalise_spectrally
from ganrun.models.text import TextInput, TextProjection, as_planes
from ganrun.rng import KeyedNoise


class Encoder(nn.Module):
    """Pictures [B, C', S, S] -> features [B, W, S / 2, S / 2], [B, 2 W, S / 4, S / 4], ... down to 4x4."""

    def __init__(self, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True))]
        while image_size // 2 ** len(layers) > 4:
            down = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
            layers.append(nn.Sequential(*_block(down, nn.LeakyReLU(0.2, True))))
            width *= 2
        self.layers = nn.ModuleList(layers)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the features at each resolution, the highest first."""
        features = [pictures]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[1:]


class Generator(nn.Module):
    """Noise z [B, Z] and a condition: labels [B], pictures [B, C', S, S], embeddings -> images [B, C, S, S] in [-1, 1].

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
        classes: int = 0,
        pictures: Mapping[str, int] = MappingProxyType({}),
        text: TextInput | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.pictures = classes, tuple(pictures)
        self.text = TextProjection(text, text.augmented) if text else None
        deepest, inputs = width * image_size // 8, latent_size + classes + (text.projected if text else 0)
        layers = _block(nn.ConvTranspose2d(inputs, deepest, 4, 1, 0, bias=False), nn.ReLU(True))
        size = 4
        while size < image_size // 2:
            up = nn.ConvTranspose2d(deepest, deepest // 2, 4, 2, 1, bias=False)
            layers += _block(up, nn.ReLU(True))
            deepest, size = deepest // 2, size * 2
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.encoder = Encoder(image_size, sum(pictures.values()), width) if pictures else None

    def forward(self, z: Tensor, given: Given | Tensor | None = None, noise: KeyedNoise | None = None) -> Tensor:
        """Return images [B, C, S, S] for z [B, Z] and a condition, or labels int64 [B]."""
        if self.text is not None:
            z = torch.cat([z, self.text(given, noise).to(z.dtype)], dim=1)
        x = _join(z[:, :, None, None], label_of(given), self.classes)
        features = self.encoder(pictures_of(given, self.pictures)) if self.encoder else []
        for layer in self.layers:
            x = layer(x)
            if features and isinstance(layer, nn.ReLU):
                x = x + features.pop()
        return x


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] and a condition, as for the generator -> logits [B], above 0 for real.

    `spectral_norm` replaces batch norm, whose gain would undo the Lipschitz bound.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        classes: int = 0,
        spectral_norm: bool = False,
        minibatch_stddev: bool = False,
        pictures: Mapping[str, int] = MappingProxyType({}),
        text: TextInput | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.pictures = classes, tuple(pictures)
        first = nn.Conv2d(channels + classes + sum(pictures.values()), width, 4, 2, 1, bias=spectral_norm)
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2, True)]
        size = image_size // 2
        while size > 4:
            down = nn.Conv2d(width, width * 2, 4, 2, 1, bias=spectral_norm)
            leaky = nn.LeakyReLU(0.2, True)
            layers += [down, leaky] if spectral_norm else _block(down, leaky)
            width, size = width * 2, size // 2
        self.text = TextProjection(text) if text else None
        self.mixed = _mixing(width + text.projected, width, spectral_norm) if text else None
        if minibatch_stddev:
            layers.append(MinibatchStddev())
        layers.append(nn.Conv2d(width + minibatch_stddev, 1, 4, 1, 0, bias=False))
        self.layers = nn.Sequential(*layers)

    def intermediate(self, images: Tensor, given: Given | Tensor | None = None) -> list[Tensor]:
        """Return the features at each resolution, a list of [B, C', H, W]; the last is the input of the last layer."""
        x = _join(with_pictures(images, given, self.pictures), label_of(given), self.classes)
        features = []
        for layer, following in pairwise(self.layers):
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU | MinibatchStddev) and not isinstance(following, MinibatchStddev):
                features.append(x)
        return features

    def features(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return the input of the last layer, [B, C', 4, 4]."""
        return self.intermediate(images, given)[-1]

    def forward(self, images: Tensor, given: Given | Tensor | None = None) -> Tensor:
        """Return logits [B]."""
        features = self.features(images, given)
        if self.text is not None and self.mixed is not None:
            features = self.mixed(torch.cat([features, as_planes(self.text(given), features)], dim=1))
        logits: Tensor = self.layers[-1](features)
        return logits.flatten()


def dcgan(
    model: ModelConfig,
    data: DataConfig,
    pictures: Mapping[str, int] = MappingProxyType({}),
    text: TextInput | None = None,
) -> dict[str, nn.Module]:
    """Build generator and discriminator, with weights from N(0, 0.02^2) (section 4)."""
    size, channels = data.image_size, data.channels
    networks: dict[str, nn.Module] = {
        "generator": Generator(size, channels, model.width, model.latent_size, model.classes, pictures, text),
        "discriminator": Discriminator(
            size, channels, model.width, model.classes, model.spectral_norm, model.minibatch_stddev, pictures, text
        ),
    }
    for network in networks.values():
        network.apply(_initialise)
    if model.spectral_norm:
        normalise_spectrally(networks["discriminator"])
    return networks


def _block(layer: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module) -> list[nn.Module]:
    return [layer, SlotBatchNorm2d(layer.out_channels), activation]


def _mixing(inputs: int, outputs: int, spectral_norm: bool) -> nn.Sequential:
    """Return the 1x1 convolution over features and a sentence."""
    layer, leaky = nn.Conv2d(inputs, outputs, 1, bias=spectral_norm), nn.LeakyReLU(0.2, True)
    return nn.Sequential(*([layer, leaky] if spectral_norm else _block(layer, leaky)))


def _join(x: Tensor, label: Tensor | None, classes: int) -> Tensor:
    """Concatenate K planes to x, [B, C, H, W] -> [B, C + K, H, W]: ones for the image's class, zeros for the others."""
    if label is None:
        return x
    planes = one_hot(label, classes, x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
