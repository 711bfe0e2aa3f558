"""The algorithm: generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

A round is `discriminator_turns` turns of the discriminator, each on fresh images, and one of the generator.
In the comments x is a batch of real images, y their labels (or nothing), z noise, G the generator, D the
discriminator's logits, T the augmentation (mostly none).

Conditional games (Mirza & Osindero 2014, arXiv:1411.1784, eq. 2) generate for the labels of the batch: so the classes
are as frequent as in the data, and the x and G(z, y) in one place of a batch are of one class.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.config.registry import LOSSES, PENALTIES
from ganrun.config.schema import ModelConfig, ObjectiveConfig
from ganrun.games.augment import Augmentation
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.games.latent import Latent
from ganrun.games.losses import AdversarialLoss, DiscriminatorLoss, feature_matching
from ganrun.games.penalties import Penalties, clip_weights
from ganrun.rng import KeyedNoise


@dataclass(frozen=True)
class Objective:
    """What both players need of the config; what is not asked for costs no pass and no copy.

    Attributes:
        config: its section.
        latent: the distribution of z.
        conditional: whether the networks are told the labels.
        augment: T.
        loss: L_D and L_G.
        discriminator_loss: L_D with noise on its labels.
        penalties: on D's gradient.
    """

    config: ObjectiveConfig
    latent: Latent
    conditional: bool
    augment: Augmentation
    loss: AdversarialLoss
    discriminator_loss: DiscriminatorLoss
    penalties: Penalties

    def labels(self, batch: Batch) -> Tensor | None:
        """y, int64 [B], if the game is conditional."""
        return batch["label"] if self.conditional else None


class DiscriminatorPlayer(Player):
    """Tells real images from generated ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, objective: Objective) -> None:
        super().__init__(discriminator=discriminator)
        self.objective, self.turns = objective, objective.config.discriminator_turns

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """L_D(D(T(x), y), D(T(G(z, y)), y)) and penalties on D's gradient."""
        objective, discriminator = self.objective, self.owned["discriminator"]
        x, y = batch["image"], objective.labels(batch)
        with torch.no_grad():
            generated = others["generator"](objective.latent.draw(noise, len(x), "discriminator/z"), y)
        real = objective.augment(x, noise, "discriminator/real")
        fake = objective.augment(generated, noise, "discriminator/fake")
        # Two passes, not one over both: batch normalisation must not mix real with generated images.
        real_logits = discriminator(real, y).to(noise.dtype)
        fake_logits = discriminator(fake, y).to(noise.dtype)
        loss = objective.discriminator_loss(real_logits, fake_logits, noise)
        penalties = objective.penalties(discriminator, real, fake, y, noise)
        return Loss(sum(penalties.values(), start=loss), self._parts(real_logits, fake_logits, penalties))

    def _parts(self, real_logits: Tensor, fake_logits: Tensor, penalties: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = {"logit/real": real_logits.detach().mean(), "logit/fake": fake_logits.detach().mean()}
        if adaptive := self.objective.augment.adaptive:
            parts[adaptive.watches] = real_logits.detach().sign().mean()
            parts["augmentation/strength"] = adaptive.strength
        return parts | {f"penalty/{name}": penalty.detach() for name, penalty in penalties.items()}

    def after_step(self) -> None:
        """Clips the weights, if they have a bound."""
        if bound := self.objective.config.weight_clip:
            clip_weights(self.owned, bound)


class GeneratorPlayer(Player):
    """Makes images that the discriminator takes for real."""

    name = "generator"
    fresh_batch = False

    def __init__(self, generator: nn.Module, objective: Objective) -> None:
        super().__init__(generator=generator)
        self.objective = objective

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """L_G(D(T(G(z, y)), y)); real images are shown too where L_G compares generated ones with them."""
        objective, discriminator = self.objective, others["discriminator"]
        x, y = batch["image"], objective.labels(batch)
        generated = self.owned["generator"](objective.latent.draw(noise, len(x), "generator/z"), y)
        fake = objective.augment(generated, noise, "generator/fake")
        matching = objective.config.feature_matching
        if not (matching or objective.loss.relativistic):
            return Loss(objective.loss.generator(discriminator(fake, y).to(noise.dtype)), {})
        judge: Any = discriminator.features if matching else discriminator
        with torch.no_grad():
            real = judge(objective.augment(x, noise, "generator/real"), y).to(noise.dtype)
        compare = feature_matching if matching else objective.loss.generator
        return Loss(compare(real, judge(fake, y).to(noise.dtype)), {})


def gan(networks: dict[str, nn.Module], config: ObjectiveConfig, model: ModelConfig) -> Game:
    """The game of a generator and a discriminator with any adversarial loss."""
    loss, weights = LOSSES[config.loss], config.penalties
    objective = Objective(
        config=config,
        latent=Latent(model.latent_size, model.latent),
        conditional=model.classes > 0,
        augment=Augmentation(config),
        loss=loss,
        discriminator_loss=DiscriminatorLoss(loss, config.label_flipping, config.label_smoothing),
        penalties=Penalties({name: (PENALTIES[name], weights[name]) for name in weights}, config.penalty_every_rounds),
    )
    adaptive = objective.augment.adaptive
    return Game(
        networks=networks,
        players=(
            DiscriminatorPlayer(networks["discriminator"], objective),
            GeneratorPlayer(networks["generator"], objective),
        ),
        averaged=("generator",),
        latent=objective.latent,
        sample=lambda networks, z, label: networks["generator"](z, label),
        classes=model.classes,
        trackers={"augmentation": adaptive} if adaptive else {},
    )
