"""Each adversarial loss equals its closed form, written out with log and sigmoid."""

import pytest
import torch

from ganrun.tables import LOSSES

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
}


def test_every_loss_has_its_closed_form_here():
    assert set(LOSSES) == set(CLOSED_FORMS)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_loss_equals_its_closed_form(name):
    discriminator, generator = CLOSED_FORMS[name]
    torch.testing.assert_close(LOSSES[name].discriminator(REAL, FAKE), discriminator(REAL, FAKE))
    torch.testing.assert_close(LOSSES[name].generator(FAKE), generator(FAKE))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_gradients_of_a_loss_are_those_of_its_closed_form(name):
    def gradients(discriminator, generator):
        real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
        (discriminator(real, fake) + 3 * generator(fake)).backward()
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
    ],
)
def test_a_discriminator_that_knows_nothing_has_the_known_loss(name, discriminator, generator):
    zero = torch.zeros(5, dtype=torch.float64)
    assert LOSSES[name].discriminator(zero, zero).item() == pytest.approx(discriminator)
    assert LOSSES[name].generator(zero).item() == pytest.approx(generator)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("minimax", 0.4401896985611953, -0.3132616875182228),  # log(1 + e^-2) + log(1 + e^-1), -log(1 + e^-1)
        ("non_saturating", 0.4401896985611953, 1.3132616875182228),  # log(1 + e)
        ("least_squares", 1.0, 2.0),
        ("hinge", 0.0, 1.0),
        ("wasserstein", -3.0, 1.0),
    ],
)
def test_a_loss_of_known_logits_has_the_known_value(name, discriminator, generator):
    real, fake = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(discriminator)
    assert LOSSES[name].generator(fake).item() == pytest.approx(generator)


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_cross_entropies_stay_finite_where_a_logarithm_of_a_sigmoid_would_not(name):
    huge = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = LOSSES[name].discriminator(huge, huge) + LOSSES[name].generator(huge)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(huge.grad).all()


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_better_discriminator_has_a_lower_loss_and_the_generator_a_higher_one(name):
    loss, real, fake = LOSSES[name], torch.tensor([0.4]), torch.tensor([0.6])
    assert loss.discriminator(real + 0.2, fake - 0.2) < loss.discriminator(real, fake)
    assert loss.generator(fake - 0.2) > loss.generator(fake)
