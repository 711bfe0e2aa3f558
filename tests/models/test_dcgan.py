"""DCGAN: shapes, the paper's architecture, gradients, determinism."""

import pytest
import torch
from torch import nn

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.dcgan import dcgan


def networks(image_size=16, channels=3, width=4, latent_size=8):
    pair = dcgan(
        ModelConfig(width=width, latent_size=latent_size),
        DataConfig(shards="none", image_size=image_size, channels=channels),
    )
    return pair["generator"], pair["discriminator"]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_generator_makes_and_the_discriminator_takes_images_of_the_size(image_size, channels):
    generator, discriminator = networks(image_size, channels, width=2)
    images = generator(torch.randn(2, 8))
    assert images.shape == (2, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


@pytest.mark.parametrize(("width", "latent_size"), [(1, 1), (3, 8), (8, 100)])
def test_width_and_latent_size_are_free(width, latent_size):
    generator, discriminator = networks(32, 3, width, latent_size)
    assert discriminator(generator(torch.randn(2, latent_size))).shape == (2,)
    assert discriminator.layers[0].out_channels == width


def test_at_64_pixels_and_width_128_it_is_the_papers():
    """Figure 1: z to 1024 channels at 4x4, then 512, 256, 128 and the image, each kernel 5 there and 4 here."""
    with torch.device("meta"):
        generator, discriminator = networks(64, 3, 128, 100)
    kernel = 4 * 4
    up = kernel * (100 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 2 * (1024 + 512 + 256 + 128)
    down = kernel * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024 * 1) + 2 * (256 + 512 + 1024)
    assert parameters(generator) == up == 12_658_432
    assert parameters(discriminator) == down == 11_036_160


def test_the_layers_are_those_of_section_3():
    """No pooling; batch normalisation in all but G's output and D's input; ReLU in G, leaky in D; tanh at the end."""

    def kinds(network):
        return [type(layer).__name__.removeprefix("Slot") for layer in network.layers]

    generator, discriminator = networks(32)
    assert kinds(generator) == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 3 + ["ConvTranspose2d", "Tanh"]
    middle = ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2
    assert kinds(discriminator) == ["Conv2d", "LeakyReLU", *middle, "Conv2d"]
    assert {layer.negative_slope for layer in discriminator.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_weights_begin_with_the_papers_deviation():
    torch.manual_seed(0)
    for network in networks(64, 3, 16, 32):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 5_000:
                assert module.weight.mean().item() == pytest.approx(0, abs=2e-3)
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
                assert module.bias is None
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert module.bias.abs().sum() == 0


@pytest.mark.parametrize("image_size", [16, 64])
def test_a_gradient_reaches_every_parameter(image_size):
    generator, discriminator = networks(image_size)
    discriminator(generator(torch.randn(4, 8))).square().sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_same_seed_gives_the_same_networks_and_images():
    images = []
    for _ in range(2):
        torch.manual_seed(5)
        generator, discriminator = networks()
        made = generator(torch.randn(2, 8))
        images.append((made, discriminator(made)))
    assert torch.equal(images[0][0], images[1][0])
    assert torch.equal(images[0][1], images[1][1])


def test_another_seed_gives_other_weights():
    torch.manual_seed(5)
    first, _ = networks()
    torch.manual_seed(6)
    second, _ = networks()
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)
