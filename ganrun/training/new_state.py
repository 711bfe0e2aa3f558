"""Training state of a run before its first round."""

from collections.abc import Callable

import torch

from ganrun.config.schema import Config
from ganrun.games.build import build_game
from ganrun.games.game import Game
from ganrun.slots import Slots
from ganrun.training.state import TrainingState


def new_state(
    config: Config, device: torch.device, slots: Slots, initialise: Callable[[Game], None] = lambda game: None
) -> TrainingState:
    """Build the game of a config on a device, and the training state over it.

    `initialise` sets weights by data. It is called before the state is built, which broadcasts those of rank 0.
    """
    game = build_game(config, device)
    initialise(game)
    return state_of(game, config, slots)


def state_of(game: Game, config: Config, slots: Slots) -> TrainingState:
    """Build the training state over a game."""
    return TrainingState(game, config.run, config.data, config.optimizer, config.train, slots)
