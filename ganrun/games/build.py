"""Builds the game that a config describes, with initial weights."""

import torch
from torch import nn

from ganrun.config.imports import describe, import_modules
from ganrun.config.load import check_names
from ganrun.config.own import Own, settings_of
from ganrun.config.registry import GAMES, NETWORKS, offered
from ganrun.config.schema import Config
from ganrun.errors import UserError
from ganrun.games.calls import takes_given
from ganrun.games.check import check_game
from ganrun.games.conditions import Condition, build_condition
from ganrun.games.game import Game
from ganrun.models.checkpointing import checkpoint_activations
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
        if config.train.checkpoint_activations:
            checkpoint_activations(network)
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


def condition_of(config: Config) -> Condition:
    """Build the condition of a config. The modules of `run.imports` must be imported."""
    return build_condition(config.objective, config.model, config.data, _own(config))


def _own(config: Config) -> Own:
    return settings_of(config.own, config.run.imports) if config.run.imports else {}


def build_networks(config: Config, condition: Condition, own: Own) -> dict[str, nn.Module]:
    """Build the networks of a config, with initial weights, for its generated field and its condition.

    Raises:
        UserError: a function of the user's own returns something else.
    """
    channels, size = config.data.shape(config.objective.target)
    generated = config.data.model_copy(update={"channels": channels, "image_size": size})
    family = NETWORKS[config.model.name]
    networks = family(config.model, generated, own, condition.pictures, condition.factor, condition.text)
    if not isinstance(networks, dict) or not all(isinstance(network, nn.Module) for network in networks.values()):
        raise UserError(
            f"model.name: {config.model.name!r} builds a {type(networks).__name__}; return a dict of nn.Modules by name"
        )
    return networks


def _build(config: Config) -> Game:
    objective, model = config.objective, config.model
    own, condition = _own(config), condition_of(config)
    networks = build_networks(config, condition, own)
    game = offered(GAMES[objective.game], condition=condition, own=own, data=config.data)(networks, objective, model)
    if not isinstance(game, Game):
        raise UserError(f"objective.game: {objective.game!r} builds a {type(game).__name__}; return a Game")
    check_game(game, objective.game)
    name = objective.condition_with(model.classes)
    if name not in ("none", "label"):  # A game written before conditions may ignore labels.
        _check_told(game, condition, config)
    return game


def _check_told(game: Game, condition: Condition, config: Config) -> None:
    """Check that game and networks take the condition."""
    name = config.objective.condition
    if type(game.condition) is not type(condition):
        raise UserError(
            f"objective.condition: {name} is not that of objective.game: {config.objective.game}; its function needs "
            "an argument `condition`, which it passes to Game"
        )
    if deaf := [key for key, network in game.networks.items() if not takes_given(network)]:
        raise UserError(
            f"objective.condition: {name} does not go with model.name: {config.model.name}, whose {deaf[0]} takes "
            "labels only; its forward needs an argument `given`"
        )
