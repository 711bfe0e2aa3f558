"""Small densities of each family, their configs, and passes over samples in memory."""

import torch

from ganrun.config.registry import NETWORKS
from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.rng import KeyedNoise

IMAGES = {
    "mixture": {"components": 3},
    "mixture_of_factor_analysers": {"components": 2, "factors": 2},
    "made": {"width": 20, "components": 2},
    "pixelcnn": {"width": 6, "blocks": 2, "components": 2},
    "nice": {"width": 12, "blocks": 4},
    "realnvp": {"width": 6, "blocks": 2},
    "glow": {"width": 6, "blocks": 2},
    "vae": {"width": 4, "latent_size": 3, "components": 2},
}
"""Settings of `model` of a small density of images."""
FLOWS = ("nice", "realnvp", "glow")


def noise_of(slot=0, dtype=torch.float64):
    return KeyedNoise(0, 0, 0, slot, torch.device("cpu"), dtype)


def build(name, channels=1, size=8, seed=0, **settings):
    """A density in float64, with weights that are not those of its beginning, at which many layers do nothing."""
    torch.manual_seed(seed)
    data = DataConfig(shards="", image_size=size, channels=channels)
    network = NETWORKS[name](ModelConfig(name=name, **(IMAGES[name] | settings)), data)["density"].double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def images_of(count, channels=1, size=8, seed=0):
    """Random images of 256 levels in [-1, 1], smooth enough to have something to learn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 2, 2, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    fine = smooth + 0.05 * torch.randn(smooth.shape, generator=generator, dtype=torch.float64)
    return (fine.clamp(0, 1) * 255).round() / 127.5 - 1


def passes_over(samples, chunk=64, rank=0, ranks=1):
    """Passes over samples in memory, those of a rank among `ranks`."""

    def passes():
        for start in range(rank * chunk, len(samples), ranks * chunk):
            yield samples[start : start + chunk], noise_of(start, samples.dtype)

    return passes


def nothing(sums):
    """Add over a single rank."""
