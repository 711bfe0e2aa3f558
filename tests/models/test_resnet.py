"""Residual networks of SNGAN against the tables of the paper."""

import pytest
import torch
from torch import nn

from ganrun.models.normalization import SlotBatchNorm2d, SlotConditionalBatchNorm2d
from ganrun.models.resnet import DownBlock, discriminator_plan, generator_plan
from tests.models.pairs import CLASSES, pair, parameters


def up(inputs, outputs):
    norms = 2 * inputs + 2 * outputs
    return norms + 9 * inputs * outputs + outputs + 9 * outputs**2 + outputs + inputs * outputs + outputs


def down(inputs, outputs, shortcut=True):
    return 9 * inputs * outputs + outputs + 9 * outputs**2 + outputs + shortcut * (inputs * outputs + outputs)


def test_at_32_pixels_and_width_128_it_is_that_of_table_4():
    with torch.device("meta"):
        generator, discriminator = pair("resnet", 32, width=128, latent_size=128)
    dense = 128 * 16 * 256 + 16 * 256
    assert parameters(generator) == dense + 3 * up(256, 256) + 2 * 256 + 9 * 256 * 3 + 3 == 4_276_739
    judged = down(3, 128) + down(128, 128) + 2 * down(128, 128, shortcut=False) + 128 + 1
    assert parameters(discriminator) == judged == 1_053_825


def test_at_48_pixels_and_width_64_it_is_that_of_table_5():
    with torch.device("meta"):
        generator, discriminator = pair("resnet", 48, width=64, latent_size=128)
    dense = 128 * 36 * 512 + 36 * 512
    ups = up(512, 256) + up(256, 128) + up(128, 64)
    assert parameters(generator) == dense + ups + 2 * 64 + 9 * 64 * 3 + 3
    downs = down(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024)
    assert parameters(discriminator) == downs + 1024 + 1


def test_at_128_pixels_and_width_64_the_plan_is_that_of_table_6():
    bottom, widths = generator_plan(128)
    assert (bottom, [64 * width for width in widths]) == (4, [1024, 1024, 512, 256, 128, 64])
    found = [(64 * width, halves) for width, halves in discriminator_plan(128)]
    assert found == [(64, True), (128, True), (256, True), (512, True), (1024, True), (1024, False)]


def test_conditional_it_has_a_gain_and_a_bias_a_class_and_a_projection():
    (plain, judge), (generator, conditional) = pair("resnet", 32), pair("resnet", 32, classes=CLASSES)
    kinds = [type(module) for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert kinds == [SlotConditionalBatchNorm2d] * 6 + [SlotBatchNorm2d]
    assert parameters(generator) - parameters(plain) == (CLASSES - 1) * 2 * 8 * 6
    assert parameters(conditional) - parameters(judge) == CLASSES * 4


def test_the_discriminator_is_a_projection():
    _, discriminator = pair("resnet", classes=CLASSES)
    images, label = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 0, 1])
    phi = discriminator.features(images, label)
    table, row = discriminator.embedding.weight, discriminator.dense
    expected = [phi[n] @ row.weight[0] + row.bias[0] + phi[n] @ table[label[n]] for n in range(5)]
    torch.testing.assert_close(discriminator(images, label), torch.stack(expected))


@pytest.mark.parametrize("halves", [True, False])
def test_a_block_is_its_formula(halves):
    torch.manual_seed(0)
    block, x = DownBlock(4, 4, halves), torch.randn(2, 4, 8, 8)
    pool = nn.AvgPool2d(2) if halves else nn.Identity()
    y = pool(block.conv2(torch.relu(block.conv1(torch.relu(x)))))
    shortcut = pool(nn.functional.conv2d(x, block.shortcut.weight, block.shortcut.bias)) if halves else x
    torch.testing.assert_close(block(x), y + shortcut)


def test_the_generators_shortcut_is_doubled_after_its_convolution_as_well_as_before():
    generator, _ = pair("resnet", 32)
    block, x = generator.blocks[0].eval(), torch.randn(2, 8, 4, 4)
    double = nn.Upsample(scale_factor=2)
    y = block.conv1(double(torch.relu(block.norm1(x))))
    expected = block.conv2(torch.relu(block.norm2(y))) + block.shortcut(double(x))
    torch.testing.assert_close(block(x, None), expected)
