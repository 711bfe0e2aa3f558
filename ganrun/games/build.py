"""Builds the game that a config describes, with initial weights."""

import torch
from torch import nn

from ganrun.config.imports import describe, import_modules
from ganrun.config.load import check_names
from ganrun.config.own import settings_of
from ganrun.config.registry import GAMES, NETWORKS, with_own
from ganrun.config.schema import Config
from ganrun.errors import UserError
from ganrun.games.check import check_game
from ganrun.games.game import Game
from ganrun.rng import key


def build_game(config: Config, device: torch.device) -> Game:
    """Build networks and players on `device`, in the precision of the run.

    Initial weights are a function of `run.seed` alone: they are drawn on the CPU, the same on every worker.

    Raises:
        UserError: a module in `run.imports` cannot be imported, the config names a network, game, loss or penalty that
            is not registered, what the user registered fails or builds no game, or the config has an `optimizer`
            section for a player that the game does not have.
    """
    import_modules(config.run.imports)
    check_names(config)
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.run.seed, "weights"))
        try:
            game = _build(config)
        except Exception as error:
            if isinstance(error, UserError) or not config.run.imports:
                raise
            keys = f"model.name={config.model.name} objective.game={config.objective.game}"
            raise UserError(f"{keys}: cannot be built: {describe(error, config.run.imports)}") from error
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


def _build(config: Config) -> Game:
    own = settings_of(config.own, config.run.imports) if config.run.imports else {}
    networks = NETWORKS[config.model.name](config.model, config.data, own)
    if not isinstance(networks, dict) or not all(isinstance(network, nn.Module) for network in networks.values()):
        raise UserError(
            f"model.name: {config.model.name!r} builds a {type(networks).__name__}; return a dict of nn.Modules by name"
        )
    game = with_own(GAMES[config.objective.game], own)(networks, config.objective, config.model)
    if not isinstance(game, Game):
        raise UserError(f"objective.game: {config.objective.game!r} builds a {type(game).__name__}; return a Game")
    check_game(game, config.objective.game)
    return game
