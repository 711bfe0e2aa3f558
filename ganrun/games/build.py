"""Builds the game that a config describes, with initial weights."""

import importlib

import torch
from torch import nn

from ganrun.config.load import check_names
from ganrun.config.registry import GAMES, NETWORKS, offered
from ganrun.config.schema import Config
from ganrun.errors import UserError
from ganrun.games.calls import takes_given
from ganrun.games.conditions import Condition, build_condition
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
        game = _build(config)
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


def build_networks(config: Config, condition: Condition) -> dict[str, nn.Module]:
    """Build the networks of a config, with initial weights, for its generated field and its condition."""
    channels, size = config.data.shape(config.objective.target)
    generated = config.data.model_copy(update={"channels": channels, "image_size": size})
    networks: dict[str, nn.Module] = NETWORKS[config.model.name](config.model, generated, condition.pictures)
    return networks


def _build(config: Config) -> Game:
    objective, model = config.objective, config.model
    condition = build_condition(objective, model, config.data)
    networks = build_networks(config, condition)
    game: Game = offered(GAMES[objective.game], condition=condition)(networks, objective, model)
    name = objective.condition_with(model.classes)
    if name in ("none", "label"):
        return game  # A game written before conditions may ignore labels.
    if type(game.condition) is not type(condition):
        raise UserError(
            f"objective.condition: {name} is not that of objective.game: {objective.game}; its function needs an "
            "argument `condition`, which it passes to Game"
        )
    if deaf := [key for key in networks if not takes_given(networks[key])]:
        raise UserError(
            f"objective.condition: {name} does not go with model.name: {model.name}, whose {deaf[0]} takes labels "
            "only; its forward needs an argument `given`"
        )
    return game
