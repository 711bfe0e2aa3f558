"""The algorithm: generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

A round is `discriminator_turns` turns of the discriminator, each on a new batch, then one turn of the generator.
Notation: x real images, c their condition (nothing in unconditional games), z noise, G generator, D discriminator
logits, T augmentation (identity by default).

Conditional games (Mirza & Osindero 2014, arXiv:1411.1784, eq. 2) generate for the conditions of the real batch: c[i]
belongs to x[i], and G(z, c)[i] is to be like x[i].
"""

from torch import Tensor, nn, no_grad

from ganrun.config.own import Own
from ganrun.config.schema import ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.calls import judge, logged
from ganrun.games.conditions import Condition
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.games.losses import feature_matching
from ganrun.games.minimax import log_prob_of, minimax_of
from ganrun.games.objective import Objective, frozen_networks, objective_of
from ganrun.games.penalties import clip_weights
from ganrun.games.reconstruction import Seen
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


class DiscriminatorPlayer(Player):
    """Trains the discriminator to tell real images from generated ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, objective: Objective) -> None:
        super().__init__(discriminator=discriminator)
        self.objective, self.turns = objective, objective.config.discriminator_turns

    def active(self, images: int) -> bool:
        """Return False while the generator learns from reconstruction alone."""
        return self.objective.is_adversarial(images)

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return L_D(D(T(x, c)), D(T(G(z, c), c))) + penalties on the gradient of D."""
        objective, discriminator, own = self.objective, self.owned["discriminator"], noise.under(self.name)
        x, c = batch[objective.config.target], objective.condition.of(batch, own)
        with no_grad():
            generated = objective.generate(others["generator"], len(x), own, c)
        real, _ = objective.augment(x, c, noise, self.name, "real")
        fake, seen = objective.augment(generated, c, noise, self.name, "fake")
        # Two passes, not one over the concatenated batch: batch norm statistics must not mix real and generated images.
        real_logits = judge(discriminator, real, seen, own.under("real")).to(noise.dtype)
        fake_logits = judge(discriminator, fake, seen, own.under("fake")).to(noise.dtype)
        wrong_logits = [judge(discriminator, real, c, own.under("wrong")) for c in objective.mismatched(seen)]
        loss, parts = objective.discriminate(real_logits, fake_logits, wrong_logits, noise)
        penalties = objective.penalise(discriminator, real, fake, seen, noise)
        parts |= self._parts(real_logits, fake_logits, penalties, noise)
        return Loss(sum(penalties.values(), start=loss), parts)

    def _parts(self, real: Tensor, fake: Tensor, penalties: dict[str, Tensor], noise: KeyedNoise) -> dict[str, Tensor]:
        parts = {"logit/real": real.detach().mean(), "logit/fake": fake.detach().mean()}
        if (sign := self.objective.loss.sign(real.detach())) is not None:
            parts["logit_sign/real"] = sign
        if adaptive := self.objective.augment.adaptive:
            parts["augmentation/strength"] = adaptive.strength_in(noise)
        parts |= logged(self.owned["discriminator"])
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
        """Return L_G(D(T(G(z, c), c))) + terms that pull G(z, c) towards x."""
        objective, own, generator = self.objective, noise.under(self.name), self.owned["generator"]
        x, c = batch[objective.config.target], objective.condition.of(batch, own)
        generated = objective.generate(generator, len(x), own, c)
        terms, parts = objective.terms(generator, x, generated, Seen(c, others, own))
        losses = list(terms.values())
        if objective.is_adversarial(noise.round_start):
            losses.insert(0, self._adversarial(x, generated, c, noise, others["discriminator"]))
        for told in objective.interpolated(c):
            between = objective.generate(generator, len(x), own.under("between"), told)
            losses.append(self._adversarial(x, between, told, noise.under("between"), others["discriminator"]))
        return Loss(sum(losses[1:], start=losses[0]), parts | logged(generator))

    def _adversarial(
        self, x: Tensor, generated: Tensor, c: Given, noise: KeyedNoise, discriminator: nn.Module
    ) -> Tensor:
        """Return L_G.

        D also runs on real images if L_G is relativistic, or is feature matching, which replaces the adversarial loss.
        """
        objective, own = self.objective, noise.under(self.name)
        fake, seen = objective.augment(generated, c, noise, self.name, "fake")
        matching = objective.config.feature_matching
        output = "features" if matching else "forward"
        fake_output = judge(discriminator, fake, seen, own.under("fake"), output).to(noise.dtype)
        if not (matching or objective.loss.relativistic):
            return objective.loss.generator(fake_output)
        with no_grad():
            real, _ = objective.augment(x, c, noise, self.name, "real")
            real_output = judge(discriminator, real, seen, own.under("real"), output).to(noise.dtype)
        return (feature_matching if matching else objective.loss.generator)(real_output, fake_output)


def gan(
    networks: dict[str, nn.Module],
    config: ObjectiveConfig,
    model: ModelConfig,
    own: Own | None = None,
    condition: Condition | None = None,
) -> Game:
    """Return the game of one generator and one discriminator, with the adversarial loss that the config names."""
    if missing := {"discriminator", "generator"} - networks.keys():
        raise UserError(f"objective.game: gan needs a {min(missing)}, which model.name: {model.name} does not build")
    objective = objective_of(config, model, networks["generator"], condition, own)
    return Game(
        networks=networks,
        players=(
            DiscriminatorPlayer(networks["discriminator"], objective),
            GeneratorPlayer(networks["generator"], objective),
        ),
        averaged=("generator",),
        latent=objective.latent,
        sample=lambda networks, count, noise, given: objective.generate(networks["generator"], count, noise, given),
        trackers={**objective.trackers},
        kind=objective.kind,
        condition=objective.condition,
        frozen=frozen_networks(config),
        from_z=(lambda networks, z, noise, given: objective.from_z(networks["generator"], z, noise, given))
        if objective.latent
        else None,
        log_prob=log_prob_of(networks["generator"], config.target),
        log_prob_is="exact",
        minimax=minimax_of(objective),
    )
