"""MLPs with two hidden layers for points, stored as 1x1 images.

The standard setting for mode collapse on mixtures of Gaussians (Metz et al. 2017, arXiv:1611.02163; Srivastava et al.
2017, arXiv:1705.07761). With classes the one-hot label is concatenated to the input.

Shapes: B batch, Z latent size, K classes, N coordinates of a point, W width (units of a hidden layer).
"""

import torch
from torch import Tensor, nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.one_hot import one_hot
from ganrun.models.spectral_norm import normalise_spectrally


class Generator(nn.Module):
    """Noise z [B, Z] (and labels [B]) -> points [B, N, 1, 1], unbounded."""

    def __init__(self, numbers: int, width: int, latent_size: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.layers = hidden_layers(latent_size + classes, width, numbers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return points [B, N, 1, 1] for z [B, Z] and labels int64 [B]."""
        points: Tensor = self.layers(_join(z, label, self.classes))
        return points[:, :, None, None]


class Discriminator(nn.Module):
    """Points [B, N, 1, 1] (and labels [B]) -> logits [B], above 0 for real."""

    def __init__(self, numbers: int, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.layers = hidden_layers(numbers + classes, width, 1)

    def features(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the input of the last layer, [B, W]."""
        features: Tensor = self.layers[:-1](_join(images.flatten(1), label, self.classes))
        return features

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits [B]."""
        logits: Tensor = self.layers[-1](self.features(images, label))
        return logits.squeeze(1)


def mlp(model: ModelConfig, data: DataConfig) -> dict[str, nn.Module]:
    """Build generator and discriminator, with He initialisation (arXiv:1502.01852)."""
    networks: dict[str, nn.Module] = {
        "generator": Generator(data.channels, model.width, model.latent_size, model.classes),
        "discriminator": Discriminator(data.channels, model.width, model.classes),
    }
    for network in networks.values():
        network.apply(initialise)
    if model.spectral_norm:
        normalise_spectrally(networks["discriminator"])
    return networks


def hidden_layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return two hidden layers with ReLUs, and the layer after them: [B, inputs] -> [B, outputs]."""
    first, second, last = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def _join(x: Tensor, label: Tensor | None, classes: int) -> Tensor:
    return x if label is None else torch.cat([x, one_hot(label, classes, x.dtype)], dim=1)


def initialise(module: nn.Module) -> None:
    """Set the weights of a linear layer by He et al. 2015 (arXiv:1502.01852), and its bias to 0."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
