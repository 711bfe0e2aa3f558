"""Properties of all network families."""

import copy

import pytest
import torch

from ganrun.config.registry import NETWORKS
from ganrun.models.r3gan import Block
from tests.models.pairs import CLASSES, LATENT, WIDTHS, pair, smallest

SWITCHES = ("spectral_norm", "minibatch_stddev")
PAIRS = [(name, classes) for name in sorted(WIDTHS) for classes in (0, CLASSES)]
SIZES = [(name, size) for name in sorted(WIDTHS) for size in NETWORKS[name].image_sizes]
SWITCHED = [(name, switch) for name in sorted(WIDTHS) for switch in SWITCHES if switch not in NETWORKS[name].without]


def inputs(classes, batch=4, dtype=torch.float32):
    z = torch.randn(batch, LATENT, generator=torch.Generator().manual_seed(1)).to(dtype)
    return z, torch.arange(batch) % classes if classes else None


def unzero(network):
    """R3GAN's residual branches begin as 0, which hides what is in them."""
    for module in network.modules():
        if isinstance(module, Block):
            torch.nn.init.normal_(module.project.weight, 0.0, 0.1)


def test_every_built_in_pair_is_tested():
    assert WIDTHS.keys() == {"dcgan", "resnet", "r3gan", "mlp"}


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name in sorted(WIDTHS) for size in NETWORKS[name].image_sizes]
)
def test_the_generator_makes_and_the_discriminator_takes_images_of_the_size(name, size, channels, classes):
    generator, discriminator = pair(name, size, channels, width=8 if name == "r3gan" else 2, classes=classes)
    z, label = inputs(classes, batch=2)
    with torch.no_grad():
        images = generator(z, label)
        assert images.shape == (2, channels, size, size)
        logits = discriminator(images, label)
        assert logits.shape == (2,)
        assert len(discriminator.features(images, label)) == 2
    assert torch.isfinite(logits).all()
    if name in ("dcgan", "resnet"):
        assert images.abs().max() <= 1


@pytest.mark.parametrize(("name", "classes"), PAIRS)
def test_a_gradient_reaches_every_parameter(name, classes):
    torch.manual_seed(0)
    generator, discriminator = pair(name, classes=classes)
    for network in (generator, discriminator):
        unzero(network)
    z, label = inputs(classes, batch=6)
    discriminator(generator(z, label), label).square().sum().backward()
    for network in (generator, discriminator):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "switch"), SWITCHED)
def test_a_gradient_reaches_every_parameter_with_each_switch(name, switch):
    torch.manual_seed(0)
    generator, discriminator = pair(name, classes=CLASSES, **{switch: True})
    z, label = inputs(CLASSES, batch=6)
    discriminator(generator(z, label), label).square().sum().backward()
    for key, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
@pytest.mark.parametrize("on", [True, False])
def test_with_minibatch_stddev_a_logit_depends_on_the_other_images_of_the_batch(name, on):
    torch.manual_seed(0)
    _, discriminator = pair(name, minibatch_stddev=on)
    discriminator.double().eval()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    alike = images[:1].expand(4, -1, -1, -1)
    with torch.no_grad():
        differs = (discriminator(images)[0] - discriminator(alike)[0]).abs() > 1e-8
    assert differs == on


@pytest.mark.parametrize(("name", "classes"), PAIRS)
def test_the_same_seed_gives_the_same_networks_and_images_and_another_others(name, classes):
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        generator, discriminator = pair(name, classes=classes)
        z, label = inputs(classes)
        images = generator(z, label)
        made.append((images, discriminator(images, label)))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])
    assert not torch.equal(made[0][0], made[2][0])


@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_images_and_logits_differ_by_label(name):
    torch.manual_seed(0)
    generator, discriminator = pair(name, classes=CLASSES)
    # Gains and biases of conditional batch norm begin equal for all classes.
    for parameter in generator.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    z, label = inputs(CLASSES)
    other = (label + 1) % CLASSES
    with torch.no_grad():
        images = generator.eval()(z, label)
        assert (images - generator(z, other)).flatten(1).norm(dim=1).min() > 1e-3
        logits = discriminator.eval()(images, label)
        assert (logits - discriminator(images, other)).abs().min() > 1e-6


@pytest.mark.parametrize(("name", "classes"), PAIRS)
def test_without_batch_normalisation_no_image_depends_on_another(name, classes):
    """In evaluation that holds for all, in training for those discriminators that a gradient penalty may go with."""
    generator, discriminator = pair(name, classes=classes)
    z, label = inputs(classes)
    with torch.no_grad():
        images = generator.eval()(z, label)
        judge = discriminator.eval() if name == "dcgan" else discriminator.train()
        logits = judge(images, label)
        for number in range(len(z)):
            one = slice(number, number + 1)
            alone = label[one] if classes else None
            torch.testing.assert_close(generator(z[one], alone), images[one], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(judge(images[one], alone), logits[one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "classes"), PAIRS)
def test_bf16_autocast_is_near_float32(name, classes):
    torch.manual_seed(0)
    switches = dict.fromkeys((switch for switch in SWITCHES if switch not in NETWORKS[name].without), True)
    generator, discriminator = pair(name, classes=classes, **switches)
    z, label = inputs(classes)
    exact = discriminator(generator(z, label), label)
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(z, label)
        logits = discriminator(images, label)
    logits.float().sum().backward()
    for parameter in (*generator.parameters(), *discriminator.parameters()):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
    torch.testing.assert_close(logits.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@pytest.mark.parametrize(("name", "classes"), PAIRS)
def test_the_memory_layout_does_not_enter(name, classes):
    torch.manual_seed(0)
    networks = [network.double() for network in pair(name, classes=classes)]
    generator, discriminator = (copy.deepcopy(network).to(memory_format=torch.channels_last) for network in networks)
    z, label = inputs(classes, dtype=torch.float64)
    plain = networks[0](z, label)
    found = generator(z, label)
    torch.testing.assert_close(found, plain)
    judged = discriminator(found.contiguous(memory_format=torch.channels_last), label)
    torch.testing.assert_close(judged, networks[1](plain, label))


@pytest.mark.parametrize("name", ["resnet", "r3gan", "mlp"])
def test_a_gradient_penalty_has_a_gradient(name):
    """What WGAN-GP and R1 need of a discriminator: the gradient by the images has one by the weights."""
    torch.manual_seed(0)
    _, discriminator = pair(name, classes=CLASSES, spectral_norm=name != "r3gan")
    discriminator.double()
    unzero(discriminator)
    size = smallest(name)
    images = torch.rand(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = discriminator(images, torch.arange(4) % CLASSES)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    weights = [parameter for key, parameter in discriminator.named_parameters() if key.endswith("weight")]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)
