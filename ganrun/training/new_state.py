"""Training state of a run before its first round."""

import torch

from ganrun.config.schema import Config
from ganrun.games.build import build_game
from ganrun.games.game import Game
from ganrun.slots import Slots
from ganrun.training.state import TrainingState


def new_state(config: Config, device: torch.device, slots: Slots) -> TrainingState:
    """Build the game of a config on a device, and the training state over it."""
    return state_of(build_game(config, device), config, slots)


def state_of(game: Game, config: Config, slots: Slots) -> TrainingState:
    """Build the training state over a game."""
    return TrainingState(game, config.run, config.data, config.optimizer, config.train, slots)
