"""What a game is: networks, and players who each train some of them.

A new task is a new game: its conditions and its losses. See `gan.py` for the one all others resemble.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from ganrun.rng import Draw

Batch = Mapping[str, Any]
"""Named fields on the device: images [B, C, H, W] in [-1, 1], labels [B], vectors [B, N]; texts, a list of B."""
Networks = Mapping[str, nn.Module]


class Loss(NamedTuple):
    """What a player minimises over a batch, and what else it saw."""

    total: Tensor
    """Scalar."""
    parts: dict[str, Tensor]
    """Detached scalars to record, by metric name such as `score/real`."""


class Player(nn.Module, ABC):
    """Owns some networks and has a loss; in its turn it alone moves.

    It is wrapped in DistributedDataParallel whole, so that all that its loss does (several passes, gradient
    penalties) is one forward and one backward. The other networks are passed, never registered.
    """

    name: str
    turns: int = 1
    """Turns in a round."""
    fresh_batch: bool = True
    """Whether each turn takes a new batch of real images; if not, it sees that of the turn before."""

    def __init__(self, **owned: nn.Module) -> None:
        super().__init__()
        self.owned = nn.ModuleDict(owned)

    @abstractmethod
    def forward(self, batch: Batch, draw: Draw, others: Networks) -> Loss:
        """The loss over a batch; `others` are frozen."""


@dataclass(frozen=True)
class Game:
    """A game ready to be played.

    Attributes:
        networks: all that is trained, by name; checkpoints keep each under that name.
        players: in the order of their turns.
        averaged: names of the networks of which an average is kept.
        latent_size: dimensions of the noise that `sample` takes.
        sample: (networks, noise [B, Z]) -> images [B, C, H, W] in [-1, 1].
        frozen: networks that are never trained.
    """

    networks: dict[str, nn.Module]
    players: tuple[Player, ...]
    averaged: tuple[str, ...]
    latent_size: int
    sample: Callable[[Networks, Tensor], Tensor]
    frozen: dict[str, nn.Module] = field(default_factory=dict)
