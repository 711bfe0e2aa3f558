"""Symptoms of a collapse, and what to do about each. `training/collapse.py` detects them."""

ADVICE = {
    "discriminator_saturated": "the discriminator tells real from generated without fail, and the generator learns "
    "nothing: lower optimizer.discriminator.learning_rate, or choose another objective.loss",
    "gradient_vanished": "a player hardly learns: raise its optimizer.*.learning_rate, or go back to a checkpoint",
    "gradient_exploded": "a player's steps are wild: lower optimizer.*.learning_rate",
}
