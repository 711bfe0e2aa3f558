"""The game of a config, before its first round."""

import importlib

import torch

from ganrun.config import check_names
from ganrun.errors import UserError
from ganrun.games.game import Game
from ganrun.rng import key
from ganrun.sections import Config
from ganrun.tables import GAMES, NETWORKS


def build_game(config: Config, device: torch.device) -> Game:
    """Networks in the precision of the run, with the same weights on every worker and device.

    Raises:
        UserError: a module of run.imports cannot be imported, or a name of the config is in no table.
    """
    for module in config.run.imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"run.imports: {module!r} cannot be imported: {error}") from error
    check_names(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.run.seed, "weights"))
        networks = NETWORKS[config.model.name](config.model, config.data)
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    for network in networks.values():
        network.to(device=device, dtype=dtype, memory_format=torch.channels_last)
    game: Game = GAMES[config.objective.game](networks, config.objective, config.model)
    return game
