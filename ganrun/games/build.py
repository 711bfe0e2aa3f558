"""The game of a config, before its first round."""

import importlib

import torch

from ganrun.config.load import check_names
from ganrun.config.registry import GAMES, NETWORKS
from ganrun.config.schema import Config
from ganrun.errors import UserError
from ganrun.games.game import Game
from ganrun.rng import key


def build_game(config: Config, device: torch.device) -> Game:
    """Networks in the precision of the run, with the same weights on every worker and device.

    Raises:
        UserError: a module of run.imports cannot be imported, or a name of the config is in no registry.
    """
    for module in config.run.imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"run.imports: {module!r} cannot be imported: {error}") from error
    check_names(config)
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.run.seed, "weights"))
        networks = NETWORKS[config.model.name](config.model, config.data)
        game: Game = GAMES[config.objective.game](networks, config.objective, config.model)
    for network in game.networks.values():
        network.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    for player in game.players:
        player.to(device=device, dtype=dtype)
    for tracker in game.trackers.values():
        tracker.to(device=device, dtype=dtype)
    for network in game.frozen.values():
        network.to(device=device, dtype=dtype).eval().requires_grad_(False)
    names = [player.name for player in game.players]
    if strangers := config.optimizer.players - {*names, "discriminator", "generator"}:
        raise UserError(f"optimizer.{min(strangers)}: the game has no such player, only {', '.join(names)}")
    return game
