"""Maximum likelihood: one player, whose density p_model states the probability of every image.

The loss is the mean negative log-likelihood of the data, -E_data log p_model(x). Since

    KL(p_data || p_model) = E_data log p_data(x) - E_data log p_model(x)

and the first term does not depend on the model, the least loss is the least divergence, and the loss exceeds the
entropy of the data by exactly that divergence (Goodfellow 2017, arXiv:1701.00160, section 2.1). Where a model has only
a lower bound of log p_model, the loss is an upper bound of this and says so in `Game.log_prob_is`.

Notation: x real images, D = C H W their numbers. The loss is in nats per number, so that its size, and that of its
gradients, does not grow with the image.
"""

import functools
import math

from torch import Tensor, nn

from ganrun.config.schema import ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.conditions import Batch
from ganrun.games.game import AddOverRanks, Game, Loss, Networks, Passes, Player
from ganrun.games.latent import Latent
from ganrun.models.density import Density
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise


class DensityPlayer(Player):
    """Trains the density to give real images a high probability."""

    name = "density"

    def __init__(self, density: Density, config: ObjectiveConfig) -> None:
        super().__init__(density=density)
        self.config = config

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return -E log p(x) / D."""
        x, samples = batch[self.config.target], self.config.likelihood.importance_samples
        density = self.owned["density"]
        assert isinstance(density, Density)
        nats = -density.log_prob(x, noise.under(self.name), samples).mean() / x[0].numel()
        return Loss(nats, {"bits": nats.detach() / math.log(2), **density.parts()})


def likelihood(networks: dict[str, nn.Module], config: ObjectiveConfig, model: ModelConfig) -> Game:
    """Return the game of one density."""
    density = networks.get("density")
    if not isinstance(density, Density):
        raise UserError(
            f"objective.game: likelihood needs a network `density`, a ganrun.extend.Density, which model.name: "
            f"{model.name} does not build"
        )
    scored = config.likelihood.scored_samples
    return Game(
        networks=networks,
        players=(DensityPlayer(density, config),),
        averaged=("density",),
        latent=Latent(density.latent_size) if density.latent_size else None,
        sample=lambda networks, count, noise, given: _of(networks).sample(count, noise),
        from_z=_from_z if density.latent_size else None,
        initialise=functools.partial(_initialise, density, config),
        log_prob=lambda networks, batch, noise: _of(networks).log_prob(batch[config.target], noise, scored),
        log_prob_is=_described(density, scored),
        sample_passes=density.sample_passes,
    )


def _of(networks: Networks) -> Density:
    density = networks["density"]
    assert isinstance(density, Density)
    return density


def _from_z(networks: Networks, z: Tensor, noise: KeyedNoise, given: Given) -> Tensor:
    return _of(networks).from_z(z, noise)


def _initialise(density: Density, config: ObjectiveConfig, passes: Passes, add_over_ranks: AddOverRanks) -> None:
    density.initialise(
        lambda: ((batch[config.target], noise) for batch, noise in passes()),
        add_over_ranks,
        config.likelihood.em_passes,
    )


def _described(density: Density, samples: int) -> str:
    if not density.bound:
        return "exact"
    of = f" of {samples} importance samples" if density.takes_samples else ""
    return f"upper bound ({density.bound}{of})"
