"""The algorithm: generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

A round is `discriminator_turns` turns of the discriminator, each on fresh images, and one of the generator.
In the comments x is a batch of real images, z noise, G the generator, D the discriminator's logits.
"""

import torch
from torch import Tensor, nn

from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.losses import AdversarialLoss
from ganrun.rng import Draw
from ganrun.sections import ModelConfig, ObjectiveConfig
from ganrun.tables import LOSSES


class DiscriminatorPlayer(Player):
    """Tells real images from generated ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, loss: AdversarialLoss, latent_size: int, turns: int) -> None:
        super().__init__(discriminator=discriminator)
        self.loss, self.latent_size, self.turns = loss, latent_size, turns

    def forward(self, batch: Batch, draw: Draw, others: Networks) -> Loss:
        """L_D(D(x), D(G(z)))."""
        real = batch["image"]
        with torch.no_grad():
            fake = others["generator"](draw.normal(len(real), self.latent_size, purpose="discriminator/z"))
        # Two passes, not one over both: batch normalisation must not mix real with generated images.
        real_logits = self.owned["discriminator"](real).to(draw.dtype)
        fake_logits = self.owned["discriminator"](fake).to(draw.dtype)
        return Loss(
            self.loss.discriminator(real_logits, fake_logits),
            {"score/real": real_logits.detach().mean(), "score/fake": fake_logits.detach().mean()},
        )


class GeneratorPlayer(Player):
    """Makes images that the discriminator takes for real."""

    name = "generator"
    fresh_batch = False

    def __init__(self, generator: nn.Module, loss: AdversarialLoss, latent_size: int) -> None:
        super().__init__(generator=generator)
        self.loss, self.latent_size = loss, latent_size

    def forward(self, batch: Batch, draw: Draw, others: Networks) -> Loss:
        """L_G(D(G(z))), with as many z as there are images in the batch."""
        fake = self.owned["generator"](draw.normal(len(batch["image"]), self.latent_size, purpose="generator/z"))
        return Loss(self.loss.generator(others["discriminator"](fake).to(draw.dtype)), {})


def sample(networks: Networks, z: Tensor) -> Tensor:
    """G(z)."""
    images: Tensor = networks["generator"](z)
    return images


def gan(networks: dict[str, nn.Module], objective: ObjectiveConfig, model: ModelConfig) -> Game:
    """The game of a generator and a discriminator with any adversarial loss."""
    loss = LOSSES[objective.loss]
    return Game(
        networks=networks,
        players=(
            DiscriminatorPlayer(networks["discriminator"], loss, model.latent_size, objective.discriminator_turns),
            GeneratorPlayer(networks["generator"], loss, model.latent_size),
        ),
        averaged=("generator",),
        latent_size=model.latent_size,
        sample=sample,
    )
