"""Symptoms of collapse, with advice for each. `training/collapse.py` detects them."""

ADVICE = {
    "discriminator_saturated": "the discriminator separates all real and generated images, and the generator "
    "gets no gradient: lower optimizer.discriminator.learning_rate, or choose another objective.loss",
    "discriminator_winning": "the discriminator knows almost every real image, and tells the generator little of what "
    "is real: augment with objective.ada_target: 0.6, lower optimizer.discriminator.learning_rate, or add "
    "objective.penalties: {r1: 1}",
    "gradient_vanished": "the gradients of a player are close to 0: raise its optimizer.*.learning_rate, or go back to "
    "a checkpoint",
    "gradient_exploded": "the gradients of a player are too large: lower optimizer.*.learning_rate",
}
