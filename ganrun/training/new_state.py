"""Training state of a run before its first round."""

import torch

from ganrun.config.schema import Config
from ganrun.games.build import build_game
from ganrun.slots import Slots
from ganrun.training.state import TrainingState


def new_state(config: Config, device: torch.device, slots: Slots) -> TrainingState:
    """Build the game of a config on a device, and the training state over it."""
    return TrainingState(build_game(config, device), config.run, config.data, config.optimizer, config.train, slots)
