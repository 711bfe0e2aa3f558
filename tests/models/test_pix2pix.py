"""Networks that translate pictures: pix2pix's own, and the trunks of DCGAN and R3GAN with a picture as condition."""

import pytest
import torch

from ganrun.config.registry import NETWORKS
from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.games.calls import generate, judge, takes_z
from ganrun.models.r3gan import Block
from ganrun.rng import KeyedNoise

CPU = torch.device("cpu")
NOISE = KeyedNoise(0, 0, 0, 0, CPU, torch.float32)
FAMILIES = {"pix2pix": 32, "dcgan": 16, "r3gan": 16}
Z = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def networks_of(name, size=None, pictures=None, channels=3, **model):
    torch.manual_seed(0)
    settings = ModelConfig(**{"name": name, "width": 8 if name == "r3gan" else 4, "latent_size": 8, **model})
    data = DataConfig(shards="none", image_size=size or FAMILIES[name], channels=channels)
    networks = NETWORKS[name](settings, data, pictures={"source": 1} if pictures is None else pictures)
    for network in networks.values():  # R3GAN's residual branches begin as 0, which hides what is in them.
        for module in network.modules():
            if isinstance(module, Block):
                torch.nn.init.normal_(module.project.weight, 0.0, 0.1)
    return networks["generator"], networks["discriminator"]


def pictures(count=4, size=32, channels=1):
    return {"source": torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1}


def images_of(generator, given, noise=NOISE, z=Z):
    return generate(generator, z[: len(given["source"])] if takes_z(generator) else None, given, noise)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name in FAMILIES for size in NETWORKS[name].image_sizes if 16 <= size <= 128]
)
def test_pictures_become_images_of_the_size_and_are_judged(name, size):
    generator, discriminator = networks_of(name, size)
    given = pictures(2, size)
    with torch.no_grad():
        images = images_of(generator, given)
        logits = judge(discriminator, images, given, NOISE)
    assert images.shape == (2, 3, size, size)
    assert logits.shape[0] == 2
    assert logits.ndim == (3 if name == "pix2pix" else 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_every_parameter_and_the_picture(name):
    generator, discriminator = networks_of(name)
    given = pictures(4, FAMILIES[name])
    given["source"].requires_grad_()
    judge(discriminator, images_of(generator, given), given, NOISE).square().sum().backward()
    assert given["source"].grad.abs().sum() > 0
    for network in (generator, discriminator):
        missing = [key for key, each in network.named_parameters() if each.grad is None or not each.grad.abs().sum()]
        # What instance norm subtracts again.
        assert [key for key in missing if not key.endswith("bias")] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_does_not_depend_on_the_other_images(name):
    generator, discriminator = networks_of(name)
    generator.eval()
    judge_one = discriminator.train() if name != "dcgan" else discriminator.eval()
    given = pictures(4, FAMILIES[name])

    class Rows:
        """The same dropout for an image alone."""

        def __init__(self, rows):
            self.rows = rows

        def take(self, noise, draw):
            whole = KeyedNoise(0, 0, 0, 0, CPU, torch.float32).draw(draw._replace(size=(4, *draw.size[1:])))
            return whole[self.rows]

    def noise(rows):
        return KeyedNoise(0, 0, 0, 0, CPU, torch.float32, source=Rows(rows))

    with torch.no_grad():
        images = images_of(generator, given, noise(slice(None)))
        logits = judge(judge_one, images, given, NOISE)
        for number in range(4):
            one = slice(number, number + 1)
            alone = {"source": given["source"][one]}
            found = images_of(generator, alone, noise(one), Z[one])
            torch.testing.assert_close(found, images[one], rtol=1e-4, atol=1e-5)
            found = judge(judge_one, images[one], alone, NOISE)
            torch.testing.assert_close(found, logits[one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_and_logits_differ_by_the_picture(name):
    generator, discriminator = networks_of(name)
    given = pictures(4, FAMILIES[name])
    other = {"source": given["source"].flip(0)}
    with torch.no_grad():
        images = images_of(generator.eval(), given)
        assert (images - images_of(generator, other)).abs().mean() > 1e-4
        discriminator.eval()
        change = judge(discriminator, images, given, NOISE) - judge(discriminator, images, other, NOISE)
    assert change.abs().mean() > 1e-6


def test_dropout_is_the_only_noise_and_stays_in_evaluation():
    generator, _ = networks_of("pix2pix")
    given = pictures()
    generator.eval()
    with torch.no_grad():
        one, again, other = (images_of(generator, given, NOISE.under(name)) for name in ("a", "a", "b"))
    assert torch.equal(one, again)
    assert (one - other).abs().mean() > 1e-4
    torch.manual_seed(5)
    with torch.no_grad():
        assert torch.equal(images_of(generator.train(), given, NOISE.under("a")), one)


def test_networks_have_the_size_of_the_paper():
    generator, discriminator = networks_of("pix2pix", 256, {"source": 3}, width=64)
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (generator, discriminator)]
    assert count == [54_414_019, 2_768_705]  # The authors' code says 54.414 M and 2.769 M.


def test_a_logit_sees_70_pixels():
    _, discriminator = networks_of("pix2pix", 256, spectral_norm=True)  # Instance norm sees the whole image.
    images = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = discriminator(images, pictures(1, 256))
    assert logits.shape == (1, 30, 30)
    (gradient,) = torch.autograd.grad(logits[0, 15, 15], images)
    seen = gradient.abs().sum((0, 1)).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_a_resize_convolution_makes_no_checkerboard():
    """Of constant features it makes constant pixels; a transposed convolution does not."""
    for resize in (False, True):
        generator, _ = networks_of("pix2pix", resize_convolution=resize)
        with torch.no_grad():
            up = generator.last(torch.ones(1, generator.last.conv.in_channels, 8, 8))[:, :, 4:-4, 4:-4]
        assert (up.std((2, 3)).max().item() < 1e-6) == resize


@pytest.mark.parametrize("name", FAMILIES)
def test_several_pictures_are_joined(name):
    generator, discriminator = networks_of(name, pictures={"source": 1, "mask": 2})
    size = FAMILIES[name]
    given = pictures(2, size) | {"mask": torch.rand(2, 2, size, size)}
    images = images_of(generator, given)
    judge(discriminator, images, given, NOISE)
    changed = given | {"mask": -given["mask"]}
    assert not torch.equal(images_of(generator, changed), images)


@pytest.mark.parametrize("name", FAMILIES)
def test_intermediate_features_end_with_the_input_of_the_last_layer(name):
    _, discriminator = networks_of(name)
    size = FAMILIES[name]
    given, images = pictures(2, size), torch.rand(2, 3, size, size)
    features = discriminator.intermediate(images, given)
    assert len(features) >= 2
    assert torch.equal(features[-1].flatten(1), discriminator.features(images, given).flatten(1))
