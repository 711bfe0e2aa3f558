"""Flows: inverses, log-determinants against autograd, densities and samples."""

import math

import pytest
import torch
from torch.func import jacrev

from ganrun.models.density import standard_normal
from ganrun.models.flows import ActNorm, Coupling, InvertibleConvolution, Logit, Split, Squeeze, zero_convolution
from ganrun.models.realnvp import CheckerboardCoupling, SwappedCoupling
from tests.densities.densities import FLOWS, build, images_of, noise_of, nothing, passes_over

LAYERS = {
    "actnorm": lambda: ActNorm(4),
    "convolution": lambda: InvertibleConvolution(4),
    "coupling": lambda: Coupling(zero_convolution(2, 4)),
    "swapped": lambda: SwappedCoupling(zero_convolution(2, 4)),
    "checkerboard": lambda: CheckerboardCoupling(zero_convolution(4, 8), 1),
    "split": lambda: Split(4),
    "squeeze": Squeeze,
    "logit": Logit,
}


def moved(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


def to_z(flow, y):
    """z and log-determinant of y, for NICE and for the others."""
    if hasattr(flow, "to_z"):
        return flow.to_z(y)
    x, determinant = flow.logit(y)
    z, further = flow.sequence(x)
    return z, determinant + further


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_its_inverse_and_the_determinant_of_autograd(name):
    layer = moved(LAYERS[name]())
    x = torch.rand(2, 4, 4, 4, dtype=torch.float64)
    z, determinant = layer(x)
    torch.testing.assert_close(layer.inverse(z), x, rtol=0, atol=1e-10)
    for number in range(2):
        jacobian = jacrev(lambda one: layer(one[None])[0].flatten())(x[number]).view(64, 64)
        expected = torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(determinant[number], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_its_inverse_and_the_determinant_of_autograd(name, channels):
    flow = build(name, channels, size=4)
    y = torch.rand(2, channels, 4, 4, dtype=torch.float64)
    z, determinant = to_z(flow, y)
    back = flow.of_z(z) if name == "nice" else flow.logit.inverse(flow.sequence.inverse_of(z, flow.shape))
    torch.testing.assert_close(back, y, rtol=0, atol=1e-5)
    numbers = y[0].numel()
    jacobian = jacrev(lambda one: to_z(flow, one[None])[0].flatten())(y[0]).view(numbers, numbers)
    torch.testing.assert_close(determinant[0], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_the_inverse_holds_in_float32(name):
    flow = build(name, size=8).float()
    y = torch.rand(4, 1, 8, 8)
    z, _ = to_z(flow, y)
    back = flow.of_z(z) if name == "nice" else flow.logit.inverse(flow.sequence.inverse_of(z, flow.shape))
    torch.testing.assert_close(back, y, rtol=0, atol=1e-5)


def test_the_density_of_a_flow_integrates_to_1():
    """Of four numbers, by importance sampling from the uniform density over images."""
    flow = build("nice", size=2, width=4)
    with torch.no_grad():
        flow.log_scale += 1.5  # Most of the mass is then inside of the images' cube.
        y = 16 * torch.rand(400_000, 1, 2, 2, dtype=torch.float64) - 8
        z, determinant = flow.to_z(y)
        log_density = (torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)).sum(1) + determinant
    values = log_density.exp() * 16.0**4
    error = values.std() / math.sqrt(len(values))
    assert abs(float(values.mean()) - 1) < 5 * float(error) + 0.01


@pytest.mark.parametrize("name", FLOWS)
def test_samples_follow_the_density(name):
    """A linear map of z: covariance and mean of samples are those of the inverse."""
    flow = build(name, size=4)
    with torch.no_grad():
        z = noise_of().normal(64, flow.latent_size, name="z")
        images = flow.sample(64, noise_of())
        torch.testing.assert_close(images, flow.from_z(z, noise_of()))
    levels = (images + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    assert images.shape == (64, 1, 4, 4)
    assert images.min() >= -1
    assert images.max() <= 1


def test_the_first_batch_leaves_every_actnorm_with_mean_0_and_variance_1():
    flow, images = build("glow"), images_of(64)
    flow.initialise(passes_over(images), nothing)
    seen = []
    for module in flow.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    flow.log_prob(images, noise_of(0))
    assert len(seen) == 4
    for z in seen:
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(z.shape[1], dtype=z.dtype), rtol=0, atol=1e-9)
        torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(z.shape[1], dtype=z.dtype))


def test_a_rank_without_samples_keeps_its_weights():
    flow = build("glow")
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    flow.initialise(passes_over(images_of(64), rank=1, ranks=2), nothing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())


def test_the_gradient_of_a_scaling_is_the_closed_form():
    """log p(x) = log N(a x; 0, I) + n log a, so d/d log a = n - sum (a x)^2."""
    norm = ActNorm(1).double()
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    z, determinant = norm(x)
    (standard_normal(z) + determinant).sum().backward()
    torch.testing.assert_close(norm.log_scale.grad.flatten()[0], 12 - x.square().sum())
