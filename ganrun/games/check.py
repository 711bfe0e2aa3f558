"""Faults of a game that would show only later: in a checkpoint without a network, or in a run without an end."""

import re
from collections.abc import Iterator

from ganrun.errors import UserError
from ganrun.games.game import Game, Player

NAME = re.compile(r"[A-Za-z0-9_]+")
"""Names of networks, players and trackers: they are names of files and, for players, keys of the config."""


def check_game(game: Game, name: str) -> None:
    """Check names and parts of a game.

    Args:
        game: the game.
        name: its name, `objective.game`.

    Raises:
        UserError: one message with all faults, a line each.
    """
    if faults := list(_faults(game)):
        raise UserError("\n  ".join(f"objective.game: {name!r}: {fault}" for fault in faults))


def _faults(game: Game) -> Iterator[str]:
    if nameless := [type(player).__name__ for player in game.players if not hasattr(player, "name")]:
        yield f"players without a name: {', '.join(nameless)}; give the class one, as in name = 'critic'"
        return
    groups = [
        *game.networks,
        *(f"{name}_ema" for name in game.averaged),
        *(f"optimizer_{player.name}" for player in game.players),
        *game.trackers,
        "recorder",  # The sums of the metrics, in training/state.py.
    ]
    for name in dict.fromkeys(groups):
        if not NAME.fullmatch(name):
            yield f"the name {name!r}; allowed: letters, digits and underscores"
        elif groups.count(name) > 1:
            yield f"the name {name!r} twice among networks, their EMA, optimizers and trackers; rename one"
    if unknown := set(game.averaged) - game.networks.keys():
        yield f"averaged: {min(unknown)!r} is not among networks: {', '.join(game.networks)}"
    if not game.players[0].fresh_batch:
        yield f"player {game.players[0].name}: fresh_batch=False, but a round begins with a new batch; set it to True"
    for player in game.players:
        yield from _faults_of_player(player, game)


def _faults_of_player(player: Player, game: Game) -> Iterator[str]:
    for name, network in player.owned.items():
        if game.networks.get(name) is not network:
            yield f"player {player.name}: {name!r} is not that network of Game.networks; it would not be saved"
    owned = {id(parameter) for parameter in player.owned.parameters()}
    if not owned:
        yield f"player {player.name}: its networks have no parameters; pass them as super().__init__(NAME=network)"
    for name, parameter in player.named_parameters():
        if parameter.requires_grad and id(parameter) not in owned:
            yield (
                f"player {player.name}: {name} is in none of its networks, so it would not be trained; "
                "pass its module as super().__init__(NAME=module)"
            )
    if player.turns < 1:
        yield f"player {player.name}: turns: {player.turns}; allowed: at least 1"
