"""The rules that both players of a GAN keep to, made from the config: noise, labels, view, loss and penalties.

`gan.py` says when each is used. What is not asked for costs nothing: no pass, no copy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.config.registry import LOSSES, PENALTIES
from ganrun.config.schema import ModelConfig, ObjectiveConfig
from ganrun.games.augment import AdaptiveAugmentation, Transform, transforms
from ganrun.games.game import Batch
from ganrun.games.latent import Latent
from ganrun.games.losses import AdversarialLoss, flip_labels, smoothing
from ganrun.games.penalties import Discriminator, Penalty, penalise
from ganrun.rng import KeyedNoise


@dataclass(frozen=True)
class Rules:
    """Of one game.

    Attributes:
        latent: where z comes from.
        conditional: whether the networks are given the labels.
        view: what is done to all images, in both turns, before the discriminator sees them.
        adaptive: the part of the view whose strength follows the discriminator, if there is one.
        penalties: with their weights, by name.
    """

    objective: ObjectiveConfig
    loss: AdversarialLoss
    latent: Latent
    conditional: bool
    view: tuple[Transform, ...]
    adaptive: AdaptiveAugmentation | None
    penalties: dict[str, tuple[Penalty, float]]

    @classmethod
    def of(cls, objective: ObjectiveConfig, model: ModelConfig) -> "Rules":
        """Those of a config."""
        adaptive = AdaptiveAugmentation(objective.ada_target, objective.ada_images) if objective.ada_target else None
        return cls(
            objective,
            LOSSES[objective.loss],
            Latent(model.latent_size, model.latent),
            model.classes > 0,
            ((adaptive,) if adaptive else ()) + transforms(objective),
            adaptive,
            {name: (PENALTIES[name], weight) for name, weight in objective.penalties.items()},
        )

    @property
    def compares(self) -> bool:
        """Whether the generator's loss, too, is of real and generated images."""
        return self.objective.feature_matching or self.loss.relativistic

    def labels(self, batch: Batch) -> Tensor | None:
        """The batch's, int64 [B], if the game is conditional."""
        return batch["label"] if self.conditional else None

    def noise(self, batch: Batch, noise: KeyedNoise, name: str) -> Tensor:
        """As many z as there are images in the batch."""
        return self.latent.draw(noise, len(batch["image"]), name)

    def shown(self, images: Tensor, noise: KeyedNoise, name: str) -> Tensor:
        """What the discriminator sees of the images."""
        for transform in self.view:
            images = transform(images, noise, name)
        return images

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor, noise: KeyedNoise) -> Tensor:
        """L_D, told the truth about all images or not quite."""
        if share := self.objective.label_flipping:
            real_logits, fake_logits = flip_labels(real_logits, fake_logits, share, noise)
        loss = self.loss.discriminator(real_logits, fake_logits)
        if amount := self.objective.label_smoothing:
            loss = loss + smoothing(real_logits, amount)
        return loss

    def penalties_of(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, label: Tensor | None, noise: KeyedNoise
    ) -> dict[str, Tensor]:
        """The penalties that are due in this round, by name, as they enter the loss.

        Lazily, after Karras et al. 2020 (arXiv:1912.04958), section 3.1: every k-th round, times k. Their Adam is
        corrected because a penalty takes a step of its own there; here it shares the loss's, and Adam stays as it is.
        """
        every = self.objective.penalty_every_rounds
        if not self.penalties or noise.round % every:
            return {}
        found = penalise(self.penalties, discriminator, real, fake, label, noise)
        return {name: penalty * every for name, penalty in found.items()}

    def clip(self, discriminator: torch.nn.Module) -> None:
        """Weight clipping: Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1, after each step of the critic."""
        if bound := self.objective.weight_clip:
            with torch.no_grad():
                for parameter in discriminator.parameters():
                    parameter.clamp_(-bound, bound)
