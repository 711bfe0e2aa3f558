"""What a game is: networks, and players who each train some of them.

A new task is a new game: its conditions and its losses. See `gan.py` for the one all others resemble.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ganrun.games.latent import Latent
from ganrun.rng import KeyedNoise

Batch = Mapping[str, Any]
"""Named fields on the device: images [B, C, H, W] in [-1, 1], labels [B], vectors [B, N]; texts, a list of B."""
Networks = Mapping[str, nn.Module]


class Loss(NamedTuple):
    """What a player minimises over a batch, and what else it saw."""

    total: Tensor
    """Scalar."""
    parts: dict[str, Tensor]
    """Detached scalars to record, by metric name such as `logit/real`."""


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
    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """The loss over a batch; `others` are frozen."""

    def after_step(self) -> None:
        """What is done to its networks after each of its optimizer's steps, on the device."""


class Tracker(Protocol):
    """What a game learns other than by gradients, such as how strongly to augment: a module with buffers.

    They are all its state: checkpoints keep them, under its name in `Game.trackers`. After each turn that reports
    what it watches, it is told the mean over all slots, the same bits on every worker.
    """

    watches: str
    """A name in `Loss.parts`."""

    def update(self, mean: Tensor, images: int) -> None:
        """After a turn on so many images; on the device, without reading anything back."""

    def state_dict(self) -> dict[str, Any]:
        """Of `nn.Module`."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Of `nn.Module`."""

    def to(self, *, device: torch.device, dtype: torch.dtype) -> object:
        """Of `nn.Module`."""


@dataclass(frozen=True)
class Game:
    """A game ready to be played.

    Attributes:
        networks: all that is trained, by name; checkpoints keep each under that name.
        players: in the order of their turns.
        averaged: names of the networks of which an average is kept.
        latent: where the noise comes from that `sample` takes.
        sample: (networks, noise [B, Z], labels int64 [B] or None) -> images [B, C, H, W] in [-1, 1].
        classes: labels that images are generated for; 0: none.
        frozen: networks that are never trained.
        trackers: state that no gradient moves, by name.
    """

    networks: dict[str, nn.Module]
    players: tuple[Player, ...]
    averaged: tuple[str, ...]
    latent: Latent
    sample: Callable[[Networks, Tensor, Tensor | None], Tensor]
    classes: int = 0
    frozen: dict[str, nn.Module] = field(default_factory=dict)
    trackers: dict[str, Tracker] = field(default_factory=dict)

    def labels(self, start: int, count: int, device: torch.device) -> Tensor | None:
        """Of the images numbered from `start` on, [count]: class by class in turn, so that each is as frequent."""
        return torch.arange(start, start + count, device=device) % self.classes if self.classes else None
