"""The algorithm: generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

A round is `discriminator_turns` turns of the discriminator, each on a new batch, then one turn of the generator.
Notation: x real images, y their labels (None if unconditional), z noise, G generator, D discriminator logits,
T augmentation (identity by default).

Conditional games (Mirza & Osindero 2014, arXiv:1411.1784, eq. 2) generate for the labels y of the real batch. Generated
classes are then as frequent as in the data, and x[i] and G(z, y)[i] have the same class.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.config.own import Own
from ganrun.config.registry import LOSSES, PENALTIES, with_own
from ganrun.config.schema import ModelConfig, ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.augment import Augmentation
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.games.latent import Latent
from ganrun.games.losses import AdversarialLoss, DiscriminatorLoss, feature_matching
from ganrun.games.penalties import Penalties, clip_weights
from ganrun.rng import KeyedNoise


@dataclass(frozen=True)
class Objective:
    """Losses, penalties and augmentation that both players share. Parts that are off cost no forward pass or copy.

    Attributes:
        config: section `objective` of the config.
        latent: distribution of z.
        conditional: True if G and D take labels.
        augment: T.
        loss: adversarial losses L_D and L_G.
        discriminator_loss: L_D with label flipping and smoothing.
        penalties: penalties on the gradient of D.
    """

    config: ObjectiveConfig
    latent: Latent
    conditional: bool
    augment: Augmentation
    loss: AdversarialLoss
    discriminator_loss: DiscriminatorLoss
    penalties: Penalties

    def labels(self, batch: Batch) -> Tensor | None:
        """Return y, int64 [B], or None if the game is unconditional."""
        return batch["label"] if self.conditional else None


class DiscriminatorPlayer(Player):
    """Trains the discriminator to tell real images from generated ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, objective: Objective) -> None:
        super().__init__(discriminator=discriminator)
        self.objective, self.turns = objective, objective.config.discriminator_turns

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return L_D(D(T(x), y), D(T(G(z, y)), y)) + penalties on the gradient of D."""
        objective, discriminator = self.objective, self.owned["discriminator"]
        x, y = batch["image"], objective.labels(batch)
        with torch.no_grad():
            generated = others["generator"](objective.latent.draw(noise, len(x), "discriminator/z"), y)
        real = objective.augment(x, noise, "discriminator/real")
        fake = objective.augment(generated, noise, "discriminator/fake")
        # Two passes, not one over the concatenated batch: batch norm statistics must not mix real and generated images.
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
        """Clip the weights to `objective.weight_clip`, if it is set."""
        if bound := self.objective.config.weight_clip:
            clip_weights(self.owned, bound)


class GeneratorPlayer(Player):
    """Trains the generator to make images that the discriminator takes for real."""

    name = "generator"
    fresh_batch = False

    def __init__(self, generator: nn.Module, objective: Objective) -> None:
        super().__init__(generator=generator)
        self.objective = objective

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return L_G(D(T(G(z, y)), y)).

        D also runs on real images if L_G is relativistic, or is feature matching, which replaces the adversarial loss.
        """
        objective, discriminator = self.objective, others["discriminator"]
        x, y = batch["image"], objective.labels(batch)
        generated = self.owned["generator"](objective.latent.draw(noise, len(x), "generator/z"), y)
        fake = objective.augment(generated, noise, "generator/fake")
        matching = objective.config.feature_matching
        if not (matching or objective.loss.relativistic):
            return Loss(objective.loss.generator(discriminator(fake, y).to(noise.dtype)), {})
        output: Any = discriminator.features if matching else discriminator
        with torch.no_grad():
            real = output(objective.augment(x, noise, "generator/real"), y).to(noise.dtype)
        loss = feature_matching if matching else objective.loss.generator
        return Loss(loss(real, output(fake, y).to(noise.dtype)), {})


def gan(networks: dict[str, nn.Module], config: ObjectiveConfig, model: ModelConfig, own: Own | None = None) -> Game:
    """Return the game of one generator and one discriminator, with the adversarial loss that the config names."""
    if missing := {"discriminator", "generator"} - networks.keys():
        raise UserError(f"objective.game: gan needs a {min(missing)}, which model.name: {model.name} does not build")
    loss = LOSSES[config.loss].with_own(own)
    penalties = {name: (with_own(PENALTIES[name], own), weight) for name, weight in config.penalties.items()}
    objective = Objective(
        config=config,
        latent=Latent(model.latent_size, model.latent),
        conditional=model.classes > 0,
        augment=Augmentation(config),
        loss=loss,
        discriminator_loss=DiscriminatorLoss(loss, config.label_flipping, config.label_smoothing),
        penalties=Penalties(penalties, config.penalty_every_rounds),
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
        kind=lambda images, round: (objective.penalties.are_due(round), objective.augment.has_noise(images)),
    )
