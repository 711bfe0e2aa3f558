"""The value of a GAN: what D raises and G lowers.

    V(G, D) = -L_D(D(x, c), D(G(z, c), c))

For the cross-entropies this is V of Goodfellow et al. 2014 (arXiv:1406.2661, eq. 1),

    V(G, D) = E log sigma(D(x)) + E log(1 - sigma(D(G(z)))),

whose value where G's images are the data and D cannot tell them apart is -log 4. Most GANs are no zero-sum games: G of
the non-saturating, hinge and least-squares losses lowers another function than V. Their V is still that of D's loss,
as in Grnarova et al. 2019 (arXiv:1811.05512). Label smoothing, label flipping, augmentation and penalties belong to the
training of D and have no part in V.

Wrong sentences belong to it too. Games whose G is also pulled elsewhere (reconstruction terms, feature matching, terms
of sentences) have no such value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn, no_grad

from ganrun.config.registry import CROSS_ENTROPIES
from ganrun.games.calls import judge
from ganrun.games.conditions import Batch
from ganrun.games.objective import Objective
from ganrun.games.penalties import clip_weights
from ganrun.rng import KeyedNoise

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Minimax:
    """Value of a game of two networks, `discriminator` and `generator`.

    Attributes:
        value: (networks, batch, noise) -> V(G, D), the mean over the batch.
        penalties: (networks, batch, noise) -> the weighted penalties of the run on D, which its best response bears
            too: without them V of some games has no maximum.
        clip: bound on D's weights; 0: none.
        formula: V in words, for the provenance of scores.
        classifies: True if sigma(D(x)) is D's probability that x is real.
    """

    value: Callable[[Networks, Batch, KeyedNoise], Tensor]
    penalties: Callable[[Networks, Batch, KeyedNoise], Tensor | float]
    clip: float
    formula: str
    classifies: bool

    def after_step(self, discriminator: nn.Module) -> None:
        """Clip D's weights, as the run does."""
        if self.clip:
            clip_weights(discriminator, self.clip)


def minimax_of(objective: Objective) -> Minimax | None:
    """Return the value of a GAN; None if its generator has other aims than V."""
    config = objective.config
    text = config.text
    if config.reconstruction or config.feature_matching or text.interpolation or text.conditioning_augmentation:
        return None
    target = config.target
    penalties = replace(objective, penalties=replace(objective.penalties, every_rounds=1))

    def value(networks: Networks, batch: Batch, noise: KeyedNoise) -> Tensor:
        discriminator, x = networks["discriminator"], batch[target]
        c = objective.condition.of(batch, noise)
        generated = objective.generate(networks["generator"], len(x), noise, c)
        real = judge(discriminator, x, c, noise.under("real")).to(noise.dtype)
        fake = judge(discriminator, generated, c, noise.under("fake")).to(noise.dtype)
        return -objective.loss.discriminator(real, fake)

    def penalty(networks: Networks, batch: Batch, noise: KeyedNoise) -> Tensor | float:
        if not config.penalties:
            return 0.0
        c = objective.condition.of(batch, noise)
        with no_grad():
            generated = objective.generate(networks["generator"], len(batch[target]), noise, c)
        return sum(penalties.penalise(networks["discriminator"], batch[target], generated, c, noise).values())

    classifies = config.loss in CROSS_ENTROPIES
    formula = "E log s(D(x)) + E log(1 - s(D(G(z))))" if classifies else f"-L_D of objective.loss: {config.loss}"
    return Minimax(value, penalty, config.weight_clip, formula, classifies)


def log_prob_of(generator: nn.Module, target: str) -> Callable[[Networks, Batch, KeyedNoise], Tensor] | None:
    """Return `Game.log_prob` of a generator whose images have a density, its method `log_prob`; None without one."""
    if not hasattr(generator, "log_prob"):
        return None
    return lambda networks, batch, noise: networks["generator"].log_prob(batch[target])  # type: ignore[operator]
