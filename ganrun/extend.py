"""Public API for user modules (`run.imports`). These names are stable; every other name in ganrun may change.

    from ganrun.extend import LOSSES, AdversarialLoss
    LOSSES["my_loss"] = AdversarialLoss(discriminator=..., generator=...)

docs/extending.md shows a network, a loss, a game, and settings of their own.
"""

from ganrun.config.own import Changeable, Settings
from ganrun.config.registry import (
    CONDITIONS,
    EXTRACTORS,
    GAMES,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    OWN,
    PENALTIES,
    SCORES,
    NetworkFamily,
)
from ganrun.evaluation.score import Features, Score, ScoreBatch, ScoreSubject, Sums
from ganrun.games.conditions import Condition, UserInput
from ganrun.games.game import Batch, Game, Loss, Networks, Player, Tracker
from ganrun.games.latent import Latent
from ganrun.games.losses import AdversarialLoss
from ganrun.models.density import Density
from ganrun.models.extractors import Extractor
from ganrun.models.given import Given
from ganrun.models.normalization import SlotBatchNorm2d
from ganrun.rng import KeyedNoise

__all__ = [
    "CONDITIONS",
    "EXTRACTORS",
    "GAMES",
    "LOSSES",
    "NETWORKS",
    "OPTIMIZERS",
    "OWN",
    "PENALTIES",
    "SCORES",
    "AdversarialLoss",
    "Batch",
    "Changeable",
    "Condition",
    "Density",
    "Extractor",
    "Features",
    "Game",
    "Given",
    "KeyedNoise",
    "Latent",
    "Loss",
    "NetworkFamily",
    "Networks",
    "Player",
    "Score",
    "ScoreBatch",
    "ScoreSubject",
    "Settings",
    "SlotBatchNorm2d",
    "Sums",
    "Tracker",
    "UserInput",
]
