"""The stated signs of collapse."""

import json
from pathlib import Path

import pytest
import torch

from ganrun.config.registry import LOSSES
from ganrun.telemetry.symptoms import ADVICE
from ganrun.training.collapse import CollapseDetector

GOOD = {"loss/discriminator": 1.0, "logit/real": 1.0, "logit/fake": -1.0, "gradient_norm/generator": 1.0}
SIGNS = {
    "discriminator_saturated": {"loss/discriminator": 0.0199},
    "discriminator_winning": {"logit_sign/real": 0.981},
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
        GOOD | {"logit_sign/real": 0.98},
        GOOD | {"gradient_norm/generator": 1e-6},
        GOOD | {"gradient_norm/generator": 1e4},
        {"loss/generator": 0.01},  # a game without a discriminator
    ],
)
def test_what_looks_alike_is_none(values):
    collapse_detector = CollapseDetector()
    assert [collapse_detector.update(values) for _ in range(10)] == [()] * 10


CURVES = Path(__file__).parent.parent / "data" / "collapse"
"""Curves of DCGANs on the garments of the package: won.jsonl, a small one whose discriminator learns at 40 times the
rate of the generator, and fair.jsonl, a whole run of configs/quickstart.yaml with a fifth of the samples held out."""


@pytest.mark.parametrize(("name", "tick"), [("won", 6), ("fair", None)])
def test_recorded_curves_of_runs_that_failed_are_found_and_others_are_not(name, tick):
    detector = CollapseDetector()
    lines = [json.loads(line) for line in (CURVES / f"{name}.jsonl").read_text().splitlines()]
    found = ["discriminator_winning" in detector.update(line) for line in lines]
    assert len(found) > 5
    assert (found.index(True) + 1 if any(found) else None) == tick
    assert sum(found) == (len(found) - tick + 1 if tick else 0)


@pytest.mark.parametrize("loss", ["relativistic", "wasserstein"])
def test_losses_whose_logits_have_no_sign_have_no_sign_rate(loss):
    assert LOSSES[loss].sign(torch.ones(4)) is None


def test_the_sign_rate_is_that_beside_the_boundary_of_the_loss():
    logits = torch.tensor([0.2, 0.4, 0.6, -1.0])
    assert LOSSES["hinge"].sign(logits) == 0.5
    assert LOSSES["non_saturating"].sign(logits) == 0.5
    assert LOSSES["least_squares"].sign(logits) == -0.5  # Its targets are 0 and 1.
