"""The algorithm: generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

A round is `discriminator_turns` turns of the discriminator, each on fresh images, and one of the generator.
In the comments x is a batch of real images, y their labels (or nothing), z noise, G the generator, D the
discriminator's logits, T what is done to an image before D sees it (mostly nothing).

Conditional games (Mirza & Osindero 2014, arXiv:1411.1784, eq. 2) generate for the labels of the batch: so the classes
are as frequent as in the data, and the x and G(z, y) in one place of a batch are of one class.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ganrun.config.schema import ModelConfig, ObjectiveConfig
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.games.losses import feature_matching
from ganrun.games.rules import Rules
from ganrun.rng import KeyedNoise


class DiscriminatorPlayer(Player):
    """Tells real images from generated ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, rules: Rules) -> None:
        super().__init__(discriminator=discriminator)
        self.rules, self.turns = rules, rules.objective.discriminator_turns

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """L_D(D(T(x), y), D(T(G(z, y)), y)) and penalties on D's slope."""
        rules, discriminator, y = self.rules, self.owned["discriminator"], self.rules.labels(batch)
        with torch.no_grad():
            generated = others["generator"](rules.noise(batch, noise, "discriminator/z"), y)
        real = rules.shown(batch["image"], noise, "discriminator/real")
        fake = rules.shown(generated, noise, "discriminator/fake")
        # Two passes, not one over both: batch normalisation must not mix real with generated images.
        real_logits = discriminator(real, y).to(noise.dtype)
        fake_logits = discriminator(fake, y).to(noise.dtype)
        loss = rules.discriminator_loss(real_logits, fake_logits, noise)
        penalties = rules.penalties_of(discriminator, real, fake, y, noise)
        return Loss(sum(penalties.values(), start=loss), self._parts(real_logits, fake_logits, penalties))

    def _parts(self, real_logits: Tensor, fake_logits: Tensor, penalties: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = {"logit/real": real_logits.detach().mean(), "logit/fake": fake_logits.detach().mean()}
        if adaptive := self.rules.adaptive:
            parts[adaptive.watches] = real_logits.detach().sign().mean()
            parts["augmentation/strength"] = adaptive.strength
        return parts | {f"penalty/{name}": penalty.detach() for name, penalty in penalties.items()}

    def after_step(self) -> None:
        """The weights stay within their bound, if they have one."""
        self.rules.clip(self.owned)


class GeneratorPlayer(Player):
    """Makes images that the discriminator takes for real."""

    name = "generator"
    fresh_batch = False

    def __init__(self, generator: nn.Module, rules: Rules) -> None:
        super().__init__(generator=generator)
        self.rules = rules

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """L_G(D(T(G(z, y)), y)); real images are shown too where the loss compares generated ones with them."""
        rules, discriminator, y = self.rules, others["discriminator"], self.rules.labels(batch)
        generated = self.owned["generator"](rules.noise(batch, noise, "generator/z"), y)
        fake = rules.shown(generated, noise, "generator/fake")
        if not rules.compares:
            return Loss(rules.loss.generator(discriminator(fake, y).to(noise.dtype)), {})
        judge: Any = discriminator.features if rules.objective.feature_matching else discriminator
        with torch.no_grad():
            real = judge(rules.shown(batch["image"], noise, "generator/real"), y).to(noise.dtype)
        compare = feature_matching if rules.objective.feature_matching else rules.loss.generator
        return Loss(compare(real, judge(fake, y).to(noise.dtype)), {})


def sample(networks: Networks, z: Tensor, label: Tensor | None) -> Tensor:
    """G(z, y)."""
    images: Tensor = networks["generator"](z, label)
    return images


def gan(networks: dict[str, nn.Module], objective: ObjectiveConfig, model: ModelConfig) -> Game:
    """The game of a generator and a discriminator with any adversarial loss."""
    rules = Rules.of(objective, model)
    return Game(
        networks=networks,
        players=(
            DiscriminatorPlayer(networks["discriminator"], rules),
            GeneratorPlayer(networks["generator"], rules),
        ),
        averaged=("generator",),
        latent=rules.latent,
        sample=sample,
        classes=model.classes,
        trackers={"augmentation": rules.adaptive} if rules.adaptive else {},
    )
