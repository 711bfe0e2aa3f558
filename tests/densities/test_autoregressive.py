"""MADE, PixelCNN and their conditionals: normalised, causal, and sampled as one by one."""

import itertools

import pytest
import torch

from ganrun.models import logistic_mixture
from ganrun.models.density import of_levels
from tests.densities.densities import build, images_of, noise_of

LEVELS = of_levels(torch.arange(256, dtype=torch.float64))
AUTOREGRESSIVE = ("made", "pixelcnn")


def test_the_levels_of_a_mixture_sum_to_1():
    generator = torch.Generator().manual_seed(0)
    logits, means = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    log_scales = torch.linspace(-9, 2, 21, dtype=torch.float64).view(7, 3)
    found = logistic_mixture.log_prob(LEVELS[:, None], logits, means, log_scales).exp()
    torch.testing.assert_close(found.sum(0), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_level_has_the_difference_of_sigmoids():
    mean, log_scale = torch.tensor([0.1], dtype=torch.float64), torch.tensor([-2.0], dtype=torch.float64)
    found = logistic_mixture.log_prob(LEVELS[100:101], torch.zeros(1, 1).double(), mean[None], log_scale[None]).exp()
    edges = [torch.sigmoid((LEVELS[100] + sign / 255 - mean) / log_scale.exp()) for sign in (1, -1)]
    torch.testing.assert_close(found, edges[0] - edges[1])


def test_drawn_levels_follow_a_mixture():
    logits = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(100_000, 2)
    means = torch.tensor([-0.9, 0.3], dtype=torch.float64).expand(100_000, 2)
    log_scales = torch.tensor([-3.0, -2.0], dtype=torch.float64).expand(100_000, 2)
    noise = noise_of()
    drawn = logistic_mixture.sample(
        noise.uniform(100_000, name="a"), noise.uniform(100_000, name="b"), logits, means, log_scales
    )
    shares = torch.bincount(((drawn + 1) * 127.5).round().long(), minlength=256) / len(drawn)
    expected = logistic_mixture.log_prob(LEVELS, logits[:1], means[:1], log_scales[:1]).exp()
    assert float((shares - expected).abs().sum()) / 2 < 0.03


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_an_image_of_few_numbers_sums_to_1(name):
    """Two pixels: all 256 levels of one beside 8 of the other have the probability of these 8 levels."""
    density = build(name, size=2)
    rest = images_of(1, size=2)
    with torch.no_grad():
        total = torch.zeros((), dtype=torch.float64)
        for first in LEVELS[:: 256 // 8]:
            images = rest.repeat(256, 1, 1, 1)
            images[:, 0, 0, 0], images[:, 0, 1, 1] = first, LEVELS
            # Over the last number the sum is the probability of the three before it, which does not depend on it.
            total += density.log_prob(images, noise_of()).exp().sum()
        images = rest.repeat(256 * 8, 1, 1, 1)
        pairs = itertools.product(LEVELS[:: 256 // 8], LEVELS)
        images[:, 0, 0, 0], images[:, 0, 1, 1] = torch.tensor(list(pairs), dtype=torch.float64).T
        torch.testing.assert_close(density.log_prob(images, noise_of()).exp().sum(), total)
        # The chain rule: conditionals of the last number sum to 1, so dividing by the marginal leaves 1.
        last = rest.repeat(256, 1, 1, 1)
        last[:, 0, 1, 1] = LEVELS
        nats = density.log_prob(last, noise_of())
        conditional = nats - torch.logsumexp(nats, 0)
        torch.testing.assert_close(conditional.exp().sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_no_conditional_looks_ahead(name, channels, monkeypatch):
    """The parameters of a number's mixture have no gradient for it, or for later numbers."""
    density, size = build(name, channels, size=4), 4
    images = images_of(1, channels, size=size).requires_grad_()
    terms = []
    original = torch.logsumexp

    def spied(values, dim):
        terms.append(values)
        return original(values, dim)

    monkeypatch.setattr(torch, "logsumexp", spied)
    density.log_prob(images, noise_of())
    mixtures = terms[0]  # [1, D, K] of MADE, [1, H, W, K] of PixelCNN, where channels share a mixture.
    flat = mixtures.flatten(1, -2)
    order = torch.arange(channels * size * size).view(size, size, channels).permute(2, 0, 1)
    numbers = channels if name == "pixelcnn" else 1
    for place in range(0, flat.shape[1], 3):
        (gradient,) = torch.autograd.grad(flat[0, place].sum(), images, retain_graph=True)
        last = (place + 1) * numbers - 1
        assert float(gradient[0][order > last].abs().sum()) == 0.0
        assert float(gradient[0][order <= last].abs().sum()) > 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_cached_sampling_is_the_plain_one(name, channels):
    """Each number is that which its uniform number chooses from the conditional of `log_prob`."""
    density, size, count = build(name, channels, size=4), 4, 3
    with torch.no_grad():
        found = density.sample(count, noise_of())
        expected = plain(name, density, count, noise_of(), channels, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def plain(name, density, count, noise, channels, size):
    """Sample with a whole pass for each pixel or number."""
    x = torch.zeros(count, channels, size, size, dtype=torch.float64)
    if name == "pixelcnn":
        uniform = noise.uniform(count, size, size, 1 + channels, name="pixelcnn/sample")
        for i, j in itertools.product(range(size), range(size)):
            x[:, :, i, j] = density._draw(density.mixtures(x, noise)[:, i, j], uniform[:, i, j])
        return x
    uniform = noise.uniform(count, channels * size * size, 2, name="made/sample")
    for number, (i, j, c) in enumerate(itertools.product(range(size), range(size), range(channels))):
        logits, means, log_scales = (each[:, number] for each in density.mixtures(x, noise))
        x[:, c, i, j] = logistic_mixture.sample(uniform[:, number, 0], uniform[:, number, 1], logits, means, log_scales)
    return x


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_dropout_is_keyed_and_only_in_training(name):
    density, images = build(name, dropout=0.5), images_of(4)
    trained = [density.log_prob(images, noise_of(slot)) for slot in (0, 0, 1)]
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])
    density.eval()
    assert torch.equal(density.log_prob(images, noise_of(0)), density.log_prob(images, noise_of(1)))
