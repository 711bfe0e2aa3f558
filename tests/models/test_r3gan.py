"""Networks of R3GAN: table 9 of the paper, Fixup initialisation, bilinear resampling."""

import pytest
import torch
from torch import nn

from ganrun.models.r3gan import Block, Transition, widths
from tests.models.pairs import CLASSES, pair, parameters


@pytest.mark.parametrize(
    ("image_size", "width", "classes", "generator_millions", "discriminator_millions"),
    [
        (32, 768, 0, 20.73, 20.68),  # Stacked MNIST
        (32, 768, 10, 20.78, 21.28),  # CIFAR-10
        (256, 96, 0, 23.06, 23.01),  # FFHQ
        (64, 384, 0, 22.43, 22.38),  # FFHQ
    ],
)
def test_it_has_the_parameters_of_table_9(image_size, width, classes, generator_millions, discriminator_millions):
    with torch.device("meta"):
        generator, discriminator = pair("r3gan", image_size, width=width, latent_size=64, classes=classes)
    assert round(parameters(generator) / 1e6, 2) == generator_millions
    assert round(parameters(discriminator) / 1e6, 2) == discriminator_millions


def test_channels_and_groups_are_those_of_table_9():
    assert widths(256, 96) == [768, 768, 768, 768, 384, 192, 96]
    assert widths(64, 384) == [768, 768, 768, 768, 384]
    assert widths(32, 768) == [768] * 4
    with torch.device("meta"):
        generator, _ = pair("r3gan", 256, width=96)
    groups = [module.grouped.groups for module in generator.modules() if isinstance(module, Block)]
    assert groups == [96] * 8 + [48] * 2 + [24] * 2 + [12] * 2


def test_each_block_begins_as_the_identity():
    generator, _ = pair("r3gan", 16)
    for block in (module for module in generator.modules() if isinstance(module, Block)):
        x = torch.randn(2, block.expand.in_channels, 4, 4)
        assert torch.equal(block(x), x)


def test_the_other_convolutions_of_a_block_are_scaled_by_the_fourth_root_of_the_number_of_blocks():
    torch.manual_seed(0)
    generator, _ = pair("r3gan", 32, width=64)
    blocks = [module for module in generator.modules() if isinstance(module, Block)]
    assert len(blocks) == 8
    gain = (2 / (1 + 0.2**2)) ** 0.5
    for block in blocks:
        for conv in (block.expand, block.grouped):
            inputs = conv.weight[0].numel()
            assert conv.weight.std().item() == pytest.approx(gain * inputs**-0.5 * 8**-0.25, rel=0.05)
            assert conv.bias.abs().sum() == 0
        assert block.project.bias is None


def test_no_normalisation_and_leaky_relu():
    for network in pair("r3gan", 16):
        assert not any(isinstance(module, nn.BatchNorm2d | nn.Tanh | nn.ReLU) for module in network.modules())


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_resampling_keeps_a_plane(slope):
    """Bilinear up and down reproduce what is linear, away from the border."""

    def plane(size, step):  # of pixels `step` wide, whose centres lie at (n + 1/2) step
        return (slope * (torch.arange(size) + 0.5) * step + 3).expand(1, 1, size, size)

    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(Transition(1, 1, 2.0)(plane(16, 1.0))[inner], plane(32, 0.5)[inner])
    torch.testing.assert_close(Transition(1, 1, 0.5)(plane(32, 1.0))[inner], plane(16, 2.0)[inner])


def test_resampling_is_the_filter_with_zeros_beyond_the_border():
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(line, line)[None, None]
    x = torch.randn(2, 1, 8, 8)
    up = torch.nn.functional.conv_transpose2d(x, 4 * kernel, stride=2, padding=1)
    down = torch.nn.functional.conv2d(x, kernel, stride=2, padding=1)
    torch.testing.assert_close(Transition(1, 1, 2.0)(x), up)
    torch.testing.assert_close(Transition(1, 1, 0.5)(x), down)


def test_within_autocast_the_lowest_resolution_is_in_float32_and_the_others_are_not():
    for network, arguments in zip(pair("r3gan", 16), (torch.randn(2, 8), torch.randn(2, 3, 16, 16)), strict=True):
        seen, blocks = {}, [module for module in network.modules() if isinstance(module, Block)]

        def look(module, inputs, output, seen=seen):
            seen.setdefault(output.shape[-1], set()).add(output.dtype)

        for block in blocks:
            block.expand.register_forward_hook(look)
        with torch.autocast("cpu", torch.bfloat16):
            network(arguments)
        assert seen == {4: {torch.float32}, 8: {torch.bfloat16}, 16: {torch.bfloat16}}


def test_halving_has_the_filter_1_3_3_1():
    impulse = torch.zeros(1, 1, 16, 16)
    impulse[..., 7, 7] = 64
    found = Transition(1, 1, 0.5)(impulse)[0, 0, 3:5, 3:5]
    torch.testing.assert_close(found, torch.tensor([[9.0, 3.0], [3.0, 1.0]]))


def test_the_label_joins_z_and_projects_the_logit():
    generator, discriminator = pair("r3gan", 16, classes=CLASSES)
    z, label = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    joined = torch.cat([z, generator.embedding(label)], 1)
    x = generator.basis * (joined @ generator.modulation.weight.T)[:, :, None, None]
    images = generator(z, label)
    torch.testing.assert_close(images, generator.layers(x))
    features = discriminator.features(images, label) @ discriminator.linear.weight.T
    expected = (features * discriminator.embedding.weight[label]).sum(1)
    torch.testing.assert_close(discriminator(images, label), expected)
