"""Builds the game that a config describes, with initial weights."""

import importlib

import torch

from ganrun.config.load import check_names
from ganrun.config.registry import GAMES, NETWORKS
from ganrun.config.schema import Config
from ganrun.errors import UserError
from ganrun.games.game import Game
from ganrun.rng import key


def import_modules(config: Config) -> None:
    """Import the modules of `run.imports`, which add to the registries, and check all names of the config.

    Raises:
        UserError: a module cannot be imported, or the config names something that is not registered.
    """
    for module in config.run.imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"run.imports: cannot import {module!r}: {error}; install it or add its folder to PYTHONPATH"
            ) from error
    check_names(config)


def build_game(config: Config, device: torch.device) -> Game:
    """Build networks and players on `device`, in the precision of the run.

    Initial weights are a function of `run.seed` alone: they are drawn on the CPU, the same on every worker.

    Raises:
        UserError: a module in `run.imports` cannot be imported, the config names a network, game, loss or penalty that
            is not registered, or has an `optimizer` section for a player that the game does not have.
    """
    import_modules(config)
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
    if unknown := config.optimizer.players - {*names, "discriminator", "generator"}:
        raise UserError(f"optimizer.{min(unknown)}: the game has no such player; its players are {', '.join(names)}")
    return game
