"""The stated signs of collapse."""

import pytest

from ganrun.telemetry.symptoms import ADVICE
from ganrun.training.collapse import CollapseDetector

GOOD = {"loss/discriminator": 1.0, "logit/real": 1.0, "logit/fake": -1.0, "gradient_norm/generator": 1.0}
SIGNS = {
    "discriminator_saturated": {"loss/discriminator": 0.0199},
    "discriminator_winning": {"logit_sign/real": 0.901},
    "gradient_vanished": {"gradient_norm/generator": 0.99e-6},
    "gradient_exploded": {"gradient_norm/generator": 1.01e4},
}


def test_every_sign_has_advice_and_a_case():
    assert SIGNS.keys() == ADVICE.keys()


@pytest.mark.parametrize("symptom", SIGNS)
def test_a_sign_holds_after_five_ticks_in_a_row_and_while_they_last(symptom):
    collapse_detector, bad = CollapseDetector(), GOOD | SIGNS[symptom]
    assert [collapse_detector.update(bad) for _ in range(4)] == [()] * 4
    assert collapse_detector.update(GOOD) == ()
    assert [collapse_detector.update(bad) for _ in range(6)] == [()] * 4 + [(symptom,)] * 2
    assert collapse_detector.update(GOOD) == ()


@pytest.mark.parametrize(
    "values",
    [
        {"loss/discriminator": -3.0, "logit/real": 5.0, "logit/fake": -5.0},  # a critic that does well
        {"loss/discriminator": 0.01, "logit/real": -1.0, "logit/fake": 1.0},
        GOOD | {"loss/discriminator": 0.02},
        GOOD | {"logit_sign/real": 0.9},
        GOOD | {"gradient_norm/generator": 1e-6},
        GOOD | {"gradient_norm/generator": 1e4},
        {"loss/generator": 0.01},  # a game without a discriminator
    ],
)
def test_what_looks_alike_is_none(values):
    collapse_detector = CollapseDetector()
    assert [collapse_detector.update(values) for _ in range(10)] == [()] * 10
