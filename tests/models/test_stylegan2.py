"""StyleGAN2: its layers against loops, closed forms and torch, its networks against the numbers of its authors."""

import math

import pytest
import torch
from torch.nn import functional as F

from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.models.equalised import Blur, EqualisedConv, EqualisedLinear
from ganrun.models.r3gan import _resample
from ganrun.models.style import StyleGenerator
from ganrun.models.stylegan2 import Discriminator, Generator, ModulatedConv, stylegan2
from ganrun.rng import KeyedNoise

NOISE = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float64)


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator(size=16, width=4, classes=0, latent_size=8):
    torch.manual_seed(0)
    found = Generator(size, 3, width, latent_size, classes, mapping_layers=2).double()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("strength"):
                parameter.fill_(0.5)
    return found


def blurred(x):
    """The filter (1, 3, 3, 1) / 8 on each axis as a sum of shifted pictures, with a margin of 1."""
    padded = F.pad(x, (1, 1, 1, 1))
    height, width = padded.shape[2] - 3, padded.shape[3] - 3
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    return sum(taps[i] * taps[j] * padded[:, :, i : i + height, j : j + width] for i in range(4) for j in range(4))


@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("demodulated", [False, True])
def test_a_modulated_convolution_is_one_with_weights_of_its_own_for_each_image(doubles, demodulated):
    torch.manual_seed(0)
    conv = ModulatedConv(5, 3, 3, 4, doubles, demodulated).double()
    x, w = numbers(4, 5, 6, 6), numbers(4, 4, seed=1)
    for number, found in enumerate(conv(x, w)):
        style = w[number] @ conv.style.weight.T / math.sqrt(4) + conv.style.bias
        weight = conv.weight * style[None, :, None, None]
        if demodulated:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        else:
            weight = weight / math.sqrt(5 * 9)
        image = x[number, None]
        if doubles:
            expected = 4 * blurred(F.conv_transpose2d(image, weight.transpose(0, 1), stride=2))
        else:
            expected = F.conv2d(image, weight, padding=1)
        torch.testing.assert_close(found, expected[0])


def test_demodulation_gives_outputs_of_unit_variance():
    torch.manual_seed(0)
    conv = ModulatedConv(64, 32, 3, 16).double()
    styles = 3 * numbers(2, 16, seed=1)
    inside = conv(numbers(2, 64, 34, 34), styles)[:, :, 1:-1, 1:-1]
    assert (inside.std((2, 3)) - 1).abs().max() < 0.2
    assert abs(inside.square().mean() - 1) < 0.05


@pytest.mark.parametrize(("inputs", "rate"), [(8, 1.0), (128, 1.0), (8, 0.01)])
def test_a_step_of_adam_moves_equalised_layers_alike(inputs, rate):
    torch.manual_seed(0)
    layer = EqualisedLinear(inputs, 16, rate=rate)
    x = torch.randn(256, inputs)
    before = layer(x)
    assert abs(before.std() - 1) < 0.15  # Whatever the fan-in and the multiplier.
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    layer(x).square().sum().backward()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer.step()
    # Each number moves by the learning rate, times gain in what the layer computes: rate / sqrt(fan-in).
    moved = (layer.weight - weight).abs() * layer.gain
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1 * rate / math.sqrt(inputs)), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close((layer.bias - bias).abs() * layer.rate, torch.full((16,), 0.1 * rate), rtol=1e-2, atol=0)


def test_resampling_is_bilinear_with_zeros_beyond_the_border():
    x, blur = numbers(2, 3, 8, 8), Blur().double()
    torch.testing.assert_close(blur.enlarge(x), _resample(x, 2.0))
    torch.testing.assert_close(blur(x, padding=1, stride=2), _resample(x, 0.5))
    torch.testing.assert_close(blur(x, padding=1), blurred(x))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_halving_convolution_blurs_before_it_strides(kernel):
    torch.manual_seed(0)
    conv, x = EqualisedConv(3, 4, kernel, halves=True).double(), numbers(2, 3, 8, 8)
    wide = blurred(F.pad(x, (1, 1, 1, 1)) if kernel == 3 else x)
    expected = F.conv2d(wide, conv.weight / math.sqrt(3 * kernel**2), stride=2)
    torch.testing.assert_close(conv(x), expected)
    assert expected.shape == (2, 4, 4, 4)


@pytest.mark.parametrize(
    ("size", "width", "of_generator", "of_discriminator"),
    [(1024, 32, 30_370_060, 29_012_513), (256, 64, 24_767_458, 24_001_089), (32, 512, 21_523_475, 21_507_073)],
)
def test_the_networks_have_as_many_parameters_as_the_authors(size, width, of_generator, of_discriminator):
    """Sums of what networks of NVlabs/stylegan2-ada-pytorch have in the configurations stylegan2, paper256 and cifar,
    the last with 8 mapping layers and residual connections."""
    with torch.device("meta"):
        networks = stylegan2(
            ModelConfig(name="stylegan2", width=width, latent_size=512),
            DataConfig(shards="none", image_size=size, channels=3),
        )
    found = [sum(each.numel() for each in networks[name].parameters()) for name in ("generator", "discriminator")]
    assert found == [of_generator, of_discriminator]


@pytest.mark.parametrize("size", [8, 32])
def test_shapes(size):
    torch.manual_seed(0)
    for classes in (0, 3):
        g, d = generator(size, 4, classes), Discriminator(size, 3, 4, classes).double()
        given = {"label": torch.tensor([0, 2])} if classes else {}
        assert isinstance(g, StyleGenerator)
        images = g(numbers(2, 8), given, NOISE)
        assert images.shape == (2, 3, size, size)
        assert d(images, given).shape == (2,)
        assert g.layers == 2 * int(math.log2(size)) - 2


def test_the_class_changes_images_and_logits():
    g, d = generator(8, classes=3), Discriminator(8, 3, 4, 3).double()
    z, one, two = numbers(2, 8), {"label": torch.tensor([0, 1])}, {"label": torch.tensor([0, 2])}
    images, others = g(z, one, NOISE), g(z, two, NOISE)
    assert torch.equal(images[0], others[0])
    assert not torch.allclose(images[1], others[1])
    assert not torch.allclose(d(images, one)[1], d(images, two)[1])


def test_noise_inputs_have_a_strength_and_a_place_for_each_image():
    g, z = generator(), numbers(3, 8)
    images = g(z, None, NOISE)
    assert torch.equal(images, g(z, None, NOISE))
    assert not torch.allclose(images, g(z, None, NOISE.under("other")))
    same = g(z[:1].expand(3, -1), None, NOISE)
    assert not torch.allclose(same[0], same[1])  # Another plane.
    with torch.no_grad():
        for name, parameter in g.named_parameters():
            if name.endswith("strength"):
                parameter.zero_()
    torch.testing.assert_close(g(z, None, NOISE), g(z))


def test_each_layer_takes_a_w_of_its_own():
    g = generator()
    w = g.mapping(numbers(1, 8))[:, None].repeat(1, g.layers, 1)
    images = g.synthesis(w)
    torch.testing.assert_close(images, g(numbers(1, 8)))
    for layer in range(g.layers):
        other = w.clone()
        other[:, layer] += 1
        assert not torch.allclose(g.synthesis(other), images), layer


def test_truncation_moves_w_towards_its_mean():
    g, z = generator().eval(), numbers(4, 8)
    g.w_average.mean.copy_(numbers(8, seed=5))
    as_drawn = g(z, None, NOISE)
    g.truncation = 1.0
    assert torch.equal(g(z, None, NOISE), as_drawn)
    g.truncation = 0.0
    mean = g.synthesis(g.w_average.mean.expand(4, g.layers, -1), NOISE)
    torch.testing.assert_close(g(z, None, NOISE), mean)
    g.truncation = 0.5
    middle = (g.w_average.mean + g.mapping(z)) / 2
    torch.testing.assert_close(g(z, None, NOISE), g.synthesis(middle[:, None].expand(-1, g.layers, -1), NOISE))


def test_the_mean_of_w_moves_in_training_alone():
    g, z = generator(), numbers(4, 8)
    with torch.no_grad():
        g(z)
    g.eval()(z)
    assert g.w_average.take_batch_stats(1)[0].tolist() == [0.0] * 9
    g.train()(z)
    row = g.w_average.take_batch_stats(1)[0]
    torch.testing.assert_close(row[:-1], g.to_w(z, None).mean(0))
    assert row[-1] == 1
