"""Parts that the players of a GAN share: condition, losses, penalties, augmentation and reconstruction terms."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ganrun.config.own import Own
from ganrun.config.registry import LOSSES, PENALTIES, RECONSTRUCTION, with_own
from ganrun.config.schema import ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.adaptive_augmentation import AdaptiveAugmentation
from ganrun.games.augment import Augmentation
from ganrun.games.calls import generate, judge, takes_z
from ganrun.games.conditions import UNCONDITIONAL, Condition, Label
from ganrun.games.latent import Latent
from ganrun.games.losses import AdversarialLoss, DiscriminatorLoss
from ganrun.games.penalties import Penalties
from ganrun.games.reconstruction import Reconstruction, Seen
from ganrun.games.styles import PathLength, mixed
from ganrun.games.text import interpolated, mismatched
from ganrun.models.given import Given, as_given
from ganrun.models.perceptual import perceptual_network
from ganrun.models.style import StyleGenerator
from ganrun.rng import KeyedNoise


@dataclass(frozen=True)
class Objective:
    """Parts that both players share. Those that are off cost no forward pass or copy.

    Attributes:
        config: section `objective` of the config.
        latent: distribution of z; None for a generator without z.
        condition: what G and D are told.
        augment: T.
        loss: adversarial losses L_D and L_G.
        discriminator_loss: L_D with label flipping and smoothing.
        penalties: penalties on the gradient of D.
        reconstruction: terms that pull G(z, c) towards x.
        path_length: penalty on a generator with styles; None for others.
    """

    config: ObjectiveConfig
    latent: Latent | None
    condition: Condition
    augment: Augmentation
    loss: AdversarialLoss
    discriminator_loss: DiscriminatorLoss
    penalties: Penalties
    reconstruction: Reconstruction
    path_length: PathLength | None

    def generate(self, generator: nn.Module, count: int, noise: KeyedNoise, given: Given) -> Tensor:
        """Return G(z, c) for `count` new z, [count, C, H, W]; with mixed styles, if G is in training mode."""
        z = self.latent.draw(noise, count, "z") if self.latent else None
        mixing = self.config.style_mixing if generator.training else 0.0
        if mixing and self.latent and z is not None and isinstance(generator, StyleGenerator):
            w = mixed(generator, self.latent, z, given, noise, mixing)
            return self.condition.finish(given, generator.synthesis(w, noise))
        return self.from_z(generator, z, noise, given)

    def from_z(self, generator: nn.Module, z: Tensor | None, noise: KeyedNoise, given: Given) -> Tensor:
        """Return G(z, c) for z [B, Z], [B, C, H, W]; None for a generator without z."""
        return self.condition.finish(given, generate(generator, z, given, noise))

    def is_adversarial(self, images: int) -> bool:
        """Return True if a round that begins after `images` has adversarial losses, not reconstruction alone."""
        return images >= self.config.reconstruct_first_images

    def mismatched(self, given: Given) -> tuple[Given, ...]:
        """Return the wrong sentences of real images that D sees, one or none."""
        return (mismatched(given),) if self.condition.text and self.config.text.wrong_pairs else ()

    def discriminate(
        self, real: Tensor, fake: Tensor, wrong: Sequence[Tensor], noise: KeyedNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_D of logits [B], and scalars to log.

        With `wrong`, logits of real images and wrong sentences, it is GAN-CLS of Reed et al. 2016 (arXiv:1605.05396,
        section 4.2): L_D = 1/2 [L_D(real, fake) + L_D(real, wrong)].
        """
        loss, parts = self.discriminator_loss(real, fake, noise), {}
        for logits in wrong:
            loss = (loss + self.discriminator_loss(real, logits.to(noise.dtype), noise)) / 2
            parts["logit/wrong"] = logits.detach().mean()
        return loss, parts

    def interpolated(self, given: Given) -> tuple[Given, ...]:
        """Return what lies between sentences, if G is trained on it: GAN-INT adds L_G(D(G(z, c), c)) of it."""
        return (interpolated(given),) if self.condition.text and self.config.text.interpolation else ()

    def terms(
        self, generator: nn.Module, real: Tensor, fake: Tensor, seen: Seen
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted terms beside L_G by name, and scalars to log: those terms, and the mean path length.

        The terms are those of reconstruction, of conditioning augmentation, and the penalty on the path length.
        """
        terms, weight = self.reconstruction(real, fake, seen), self.config.text.conditioning_augmentation
        if self.condition.text and weight:
            terms["conditioning_augmentation"] = weight * generator.text.divergence(seen.given)  # type: ignore
        parts, noise = {}, seen.noise
        if self.path_length and self.path_length.is_due(noise.round):
            assert isinstance(generator, StyleGenerator)
            assert self.latent is not None
            mixing = self.config.style_mixing
            lengths = self.path_length.lengths(generator, self.latent, seen.given, len(real), mixing, noise)
            terms["penalty/path_length"] = self.path_length(lengths, noise)
            parts["path_length"] = lengths.detach().mean()
        return terms, parts | {name: term.detach() for name, term in terms.items()}

    @property
    def trackers(self) -> dict[str, AdaptiveAugmentation | PathLength]:
        """State that is updated without gradients, by name."""
        found = {"augmentation": self.augment.adaptive, "path_length": self.path_length}
        return {name: tracker for name, tracker in found.items() if tracker is not None}

    def kind(self, images: int, round: int) -> tuple[bool, ...]:
        """Return what decides which operations a round has that begins after `images`, with `round` rounds before."""
        lengths = self.path_length is not None and self.path_length.is_due(round)
        return self.penalties.are_due(round), self.augment.has_noise(images), lengths

    def penalise(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, given: Given, noise: KeyedNoise
    ) -> dict[str, Tensor]:
        """Return the weighted penalties by name. D drops out alike at all images that they look at."""
        inside = noise.under("penalty")
        return self.penalties(
            lambda images, seen: judge(discriminator, images, as_given(seen), inside), real, fake, given, noise
        )


def objective_of(
    config: ObjectiveConfig, model: ModelConfig, generator: nn.Module, condition: Condition | None, own: Own | None
) -> Objective:
    """Build the objective of a config.

    Args:
        config, model: sections of the config.
        generator: G.
        condition: the condition; None, in games written before conditions: the labels of `model.classes`, if any.
        own: section `own` of the config, for losses and penalties that take it.
    """
    if condition is None:
        condition = Label(model.classes) if model.classes else UNCONDITIONAL
    loss, terms = LOSSES[config.loss].with_own(own), config.reconstruction
    penalties = {name: (with_own(PENALTIES[name], own), weight) for name, weight in config.penalties.items()}
    return Objective(
        config=config,
        latent=Latent(model.latent_size, model.latent) if takes_z(generator) else None,
        condition=condition,
        augment=Augmentation(config, condition.pictures),
        loss=loss,
        discriminator_loss=DiscriminatorLoss(loss, config.label_flipping, config.label_smoothing),
        penalties=Penalties(penalties, config.penalty_every_rounds),
        reconstruction=Reconstruction({name: (RECONSTRUCTION[name], terms[name]) for name in terms}),
        path_length=_path_length(config, model, generator),
    )


def _path_length(config: ObjectiveConfig, model: ModelConfig, generator: nn.Module) -> PathLength | None:
    """Return the penalty on a generator with styles; None for others, which cannot have it, nor mixed styles."""
    if isinstance(generator, StyleGenerator):
        return PathLength(config.path_length, config.path_length_every_rounds)
    for key in ("style_mixing", "path_length"):
        if value := getattr(config, key):
            raise UserError(
                f"objective.{key}: {value} needs a generator with styles, which model.name: {model.name} does not "
                "build; leave it 0"
            )
    return None


def frozen_networks(config: ObjectiveConfig) -> dict[str, nn.Module]:
    """Build the frozen networks of the terms of a config, by name."""
    if "perceptual" not in config.reconstruction:
        return {}
    return {"perceptual": perceptual_network(config.perceptual.network, config.perceptual.weights)}
