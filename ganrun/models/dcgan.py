"""DCGAN (Radford, Metz & Chintala 2016, arXiv:1511.06434), for sizes that are powers of two.

Shapes: B batch, Z latent size, C channels of the image, S its size, W width (channels of the layers next to
the image). Each halving of the size doubles the channels. At S = 64 and W = 128 the generator is figure 1
of the paper: 1024 channels at 4x4 down to 128 at 32x32.
"""

from torch import Tensor, nn

from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.sections import DataConfig, ModelConfig


class Generator(nn.Module):
    """Noise z [B, Z] -> images [B, C, S, S] in [-1, 1]."""

    def __init__(self, image_size: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        deepest = width * image_size // 8
        layers = _block(nn.ConvTranspose2d(latent_size, deepest, 4, 1, 0, bias=False), nn.ReLU(True))
        size = 4
        while size < image_size // 2:
            up = nn.ConvTranspose2d(deepest, deepest // 2, 4, 2, 1, bias=False)
            layers += _block(up, nn.ReLU(True))
            deepest, size = deepest // 2, size * 2
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images for the noise."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images [B, C, S, S] in [-1, 1] -> logits [B], above 0 for real."""

    def __init__(self, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        size = image_size // 2
        while size > 4:
            down = nn.Conv2d(width, width * 2, 4, 2, 1, bias=False)
            layers += _block(down, nn.LeakyReLU(0.2, True))
            width, size = width * 2, size // 2
        layers.append(nn.Conv2d(width, 1, 4, 1, 0, bias=False))
        self.layers = nn.Sequential(*layers)

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """What the last layer sees."""
        features: Tensor = self.layers[:-1](images)
        return features

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """One logit an image."""
        logits: Tensor = self.layers[-1](self.features(images, label))
        return logits.flatten()


def dcgan(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """The pair, with weights from N(0, 0.02) as in section 4 of the paper."""
    networks: dict[str, nn.Module] = {
        "generator": Generator(data.image_size, data.channels, model.width, model.latent_size),
        "discriminator": Discriminator(data.image_size, data.channels, model.width),
    }
    for network in networks.values():
        network.apply(_initialise)
    return networks


def _block(layer: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module) -> list[nn.Module]:
    return [layer, SlotBatchNorm2d(layer.out_channels), activation]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
