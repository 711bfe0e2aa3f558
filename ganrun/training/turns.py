"""Order of the turns of a round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ganrun.training.player_step import PlayerStep


@dataclass(frozen=True)
class PlayerTurn:
    """A turn of a player in a round.

    Attributes:
        player_step: the player.
        number: which of its turns.
        batch: which of the round's fresh batches.
        offset: images shown in the round before the turn.
        shown: images shown in the round after it.
    """

    player_step: PlayerStep
    number: int
    batch: int
    offset: int
    shown: int


def turns_of(player_steps: Sequence[PlayerStep], batch_size: int) -> Iterator[PlayerTurn]:
    """Yield the turns of a round in order."""
    batch, shown = -1, 0
    for player_step in player_steps:
        fresh = player_step.player.fresh_batch
        for number in range(player_step.player.turns):
            batch += fresh or batch < 0
            yield PlayerTurn(player_step, number, batch, shown, shown + batch_size * fresh)
            shown += batch_size * fresh
