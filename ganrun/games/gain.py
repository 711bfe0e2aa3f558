"""GAIN: the game of filling missing numbers (Yoon et al. 2018, arXiv:1806.02920, section 5).

The generator fills what is missing of a row. The discriminator sees the completed row and says of each number whether
it was known. A hint tells it so of a share of the known numbers: without one, the generator's best reply is not unique.

Notation: x completed row, m 1 where a number was known and 0 where it was missing, b 1 with the probability
`hint_share` and else 0, hint h = b m, D logits. The hint is that of the authors' code; in the paper it also tells
missing numbers. The discriminator is asked for the numbers with h = 0: by the paper for one number of a row, by the
authors' code for all, those that the hint tells among them. Means over numbers stand for the paper's sums.

Rows are those of the condition `masked`, whose `mask` is 1 - m. What is missing of a training row is drawn anew each
time it is shown; what the data itself lacks is always missing.
"""

from torch import Tensor, nn, no_grad
from torch.nn.functional import softplus

from ganrun.config.schema import ModelConfig
from ganrun.config.schema_objective import GainConfig, ObjectiveConfig
from ganrun.errors import UserError
from ganrun.games.calls import generate, judge
from ganrun.games.conditions import Condition
from ganrun.games.game import Batch, Game, Loss, Networks, Player
from ganrun.rng import KeyedNoise


class DiscriminatorPlayer(Player):
    """Trains the discriminator to tell known numbers from filled ones."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, condition: Condition, config: GainConfig) -> None:
        super().__init__(discriminator=discriminator)
        self.condition, self.config = condition, config

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return the mean of -m log sigma(D(x, h)) - (1 - m) log(1 - sigma(D(x, h))) where h = 0."""
        own = noise.under(self.name)
        given = self.condition.of(batch, own)
        with no_grad():
            completed = self.condition.finish(given, generate(others["generator"], None, given, own))
        missing, told = given["mask"], hint(given["mask"], self.config.hint_share, own)
        logits = judge(self.owned["discriminator"], completed, {"hint": told}, own).to(noise.dtype)
        loss = mean((1 - missing) * softplus(-logits) + missing * softplus(logits), 1 - told)
        known, filled = mean(logits.detach(), 1 - missing), mean(logits.detach(), missing)
        return Loss(loss, {"logit/real": known, "logit/fake": filled})


class GeneratorPlayer(Player):
    """Trains the generator to fill in numbers that the discriminator takes for known ones."""

    name = "generator"
    fresh_batch = False

    def __init__(self, generator: nn.Module, condition: Condition, config: GainConfig) -> None:
        super().__init__(generator=generator)
        self.condition, self.config = condition, config

    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return the mean of -(1 - m) log sigma(D(x, h)), plus the weighted squared error at known numbers."""
        own = noise.under(self.name)
        given = self.condition.of(batch, own)
        filled = generate(self.owned["generator"], None, given, own)
        missing, told = given["mask"], hint(given["mask"], self.config.hint_share, own)
        completed = self.condition.finish(given, filled)
        logits = judge(others["discriminator"], completed, {"hint": told}, own).to(noise.dtype)
        adversarial = (missing * softplus(-logits)).mean()
        known = self.config.known_weight * mean((filled - given["masked"]).square(), 1 - missing)
        return Loss(adversarial + known, {"known": known.detach()})


def hint(missing: Tensor, share: float, noise: KeyedNoise) -> Tensor:
    """Return h [B, N, 1, 1]: 1 for numbers that the discriminator is told to be known, else 0."""
    told = (noise.uniform(*missing.shape, name="hint") < share).to(missing.dtype)
    return told * (1 - missing)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of values where `where` is 1, of the same shape; 0 if it is 1 nowhere."""
    return (values * where).sum() / where.sum().clamp(min=1)


def gain(networks: dict[str, nn.Module], config: ObjectiveConfig, model: ModelConfig, condition: Condition) -> Game:
    """Return the game of one generator and one discriminator over rows with missing numbers."""
    if missing := {"discriminator", "generator"} - networks.keys():
        raise UserError(f"objective.game: gain needs a {min(missing)}, which model.name: {model.name} does not build")
    if "mask" not in condition.pictures:
        raise UserError("objective.game: gain fills what is missing; set objective.condition: masked")
    settings = config.gain
    return Game(
        networks=networks,
        players=(
            DiscriminatorPlayer(networks["discriminator"], condition, settings),
            GeneratorPlayer(networks["generator"], condition, settings),
        ),
        averaged=("generator",),
        latent=None,
        sample=lambda networks, count, noise, given: condition.finish(
            given, generate(networks["generator"], None, given, noise)
        ),
        condition=condition,
    )
