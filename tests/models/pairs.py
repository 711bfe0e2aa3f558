"""All built-in network families at a small size."""

from typing import Any

from torch import nn

from ganrun.config.registry import NETWORKS
from ganrun.config.schema import DataConfig, ModelConfig

WIDTHS = {"dcgan": 4, "resnet": 4, "r3gan": 8, "mlp": 16}
LATENT = 8
CLASSES = 3


def pair(name: str, image_size: int | None = None, channels: int = 3, **model: Any) -> tuple[Any, Any]:
    """Generator and discriminator of the smallest size, or of `image_size`; `model` overrides its keys."""
    size = image_size or smallest(name)
    settings = ModelConfig(**{"name": name, "width": WIDTHS[name], "latent_size": LATENT, **model})
    networks = NETWORKS[name](settings, DataConfig(shards="none", image_size=size, channels=channels))
    return networks["generator"], networks["discriminator"]


def smallest(name: str) -> int:
    return min(NETWORKS[name].image_sizes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
