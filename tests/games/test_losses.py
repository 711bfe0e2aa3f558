"""Each adversarial loss and each trick on it equals its closed form, written out with log and sigmoid."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ganrun.config.registry import LOSSES
from ganrun.games import losses
from ganrun.games.losses import feature_matching, flip_labels, smoothing
from ganrun.rng import KeyedNoise

REAL = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0, 4.0], dtype=torch.float64)
FAKE = torch.tensor([-3.0, -1.0, -0.2, 0.0, 0.7, 2.5], dtype=torch.float64)


def log_sigmoid(logits):
    return torch.log(torch.sigmoid(logits))


def log_not_sigmoid(logits):
    return torch.log(1 - torch.sigmoid(logits))


def cross_entropy(real, fake):
    return -log_sigmoid(real).mean() - log_not_sigmoid(fake).mean()


CLOSED_FORMS = {
    "minimax": (cross_entropy, lambda fake: log_not_sigmoid(fake).mean()),
    "non_saturating": (cross_entropy, lambda fake: -log_sigmoid(fake).mean()),
    "least_squares": (
        lambda real, fake: 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean(),
        lambda fake: 0.5 * ((fake - 1) ** 2).mean(),
    ),
    "hinge": (
        lambda real, fake: (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean(),
        lambda fake: -fake.mean(),
    ),
    "wasserstein": (lambda real, fake: -(real.mean() - fake.mean()), lambda fake: -fake.mean()),
    "relativistic": (
        lambda real, fake: -log_sigmoid(real - fake).mean(),
        lambda real, fake: -log_sigmoid(fake - real).mean(),
    ),
}


def generator_loss(name, real, fake):
    return LOSSES[name].generator(*logits_of(name, real, fake))


def logits_of(name, real, fake):
    """What the generator's loss takes."""
    return (real, fake) if LOSSES[name].relativistic else (fake,)


def test_every_loss_has_its_closed_form_here():
    ours = {name for name in LOSSES if LOSSES[name] in vars(losses).values()}  # Other tests add theirs.
    assert ours == set(CLOSED_FORMS)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_loss_equals_its_closed_form(name):
    discriminator, generator = CLOSED_FORMS[name]
    torch.testing.assert_close(LOSSES[name].discriminator(REAL, FAKE), discriminator(REAL, FAKE))
    torch.testing.assert_close(generator_loss(name, REAL, FAKE), generator(*logits_of(name, REAL, FAKE)))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_gradients_of_a_loss_are_those_of_its_closed_form(name):
    def gradients(discriminator, generator):
        real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
        (discriminator(real, fake) + 3 * generator(*logits_of(name, real, fake))).backward()
        return real.grad, fake.grad

    found = gradients(LOSSES[name].discriminator, LOSSES[name].generator)
    torch.testing.assert_close(found, gradients(*CLOSED_FORMS[name]))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("minimax", 1.3862943611198906, -0.6931471805599453),  # 2 log 2 and -log 2: the game's solution
        ("non_saturating", 1.3862943611198906, 0.6931471805599453),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", 0.6931471805599453, 0.6931471805599453),
    ],
)
def test_a_discriminator_that_knows_nothing_has_the_known_loss(name, discriminator, generator):
    zero = torch.zeros(5, dtype=torch.float64)
    assert LOSSES[name].discriminator(zero, zero).item() == pytest.approx(discriminator)
    assert generator_loss(name, zero, zero).item() == pytest.approx(generator)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("minimax", 0.4401896985611953, -0.3132616875182228),  # log(1 + e^-2) + log(1 + e^-1), -log(1 + e^-1)
        ("non_saturating", 0.4401896985611953, 1.3132616875182228),  # log(1 + e)
        ("least_squares", 1.0, 2.0),
        ("hinge", 0.0, 1.0),
        ("wasserstein", -3.0, 1.0),
        ("relativistic", 0.04858735157374191, 3.048587351573742),  # log(1 + e^-3), log(1 + e^3)
    ],
)
def test_a_loss_of_known_logits_has_the_known_value(name, discriminator, generator):
    real, fake = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(discriminator)
    assert generator_loss(name, real, fake).item() == pytest.approx(generator)


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "relativistic"])
def test_cross_entropies_stay_finite_where_a_logarithm_of_a_sigmoid_would_not(name):
    huge = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = LOSSES[name].discriminator(huge, huge.flip(0)) + generator_loss(name, huge, huge.flip(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(huge.grad).all()


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_better_discriminator_has_a_lower_loss_and_the_generator_a_higher_one(name):
    loss, real, fake = LOSSES[name], torch.tensor([0.4]), torch.tensor([0.6])
    assert loss.discriminator(real + 0.2, fake - 0.2) < loss.discriminator(real, fake)
    assert generator_loss(name, real, fake - 0.2) > generator_loss(name, real, fake)


def test_only_cross_entropies_may_be_smoothed():
    for name in ("minimax", "non_saturating"):
        torch.testing.assert_close(LOSSES[name].discriminator(REAL, FAKE), cross_entropy(REAL, FAKE))


@pytest.mark.parametrize("amount", [0.1, 0.3])
def test_smoothing_is_the_cross_entropy_with_a_target_below_1_for_real_images_alone(amount):
    expected = bce(REAL, torch.full_like(REAL, 1 - amount)) + bce(FAKE, torch.zeros_like(FAKE))
    torch.testing.assert_close(cross_entropy(REAL, FAKE) + smoothing(REAL, amount), expected)


def test_flipping_is_the_cross_entropy_with_the_other_target_in_a_share_of_pairs():
    noise = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), torch.float64)
    stream = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 4_000, dtype=torch.float64, generator=stream)
    told_real, told_fake = flip_labels(real, fake, 0.2, noise)
    flipped = told_real == fake
    assert flipped.double().mean().item() == pytest.approx(0.2, abs=0.02)
    targets = 1 - flipped.double()
    expected = bce(real, targets) + bce(fake, 1 - targets)
    torch.testing.assert_close(cross_entropy(told_real, told_fake), expected)


def test_feature_matching_is_the_squared_distance_of_the_means():
    real = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    fake = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert feature_matching(real, fake).item() == 1 + 9
    assert feature_matching(real.view(2, 1, 2), fake.view(2, 1, 2)).item() == 1 + 9
