"""Interface of a game: its networks, and the players that train them.

A new task is a new `Game` with its own conditions and losses. `gan.py` is the reference implementation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ganrun.games.latent import Latent
from ganrun.rng import KeyedNoise

Batch = Mapping[str, Any]
"""Fields of a batch by name, on the device: images [B, C, H, W] in [-1, 1], labels int64 [B], vectors [B, N], texts as
a list of B strings."""
Networks = Mapping[str, nn.Module]


class Loss(NamedTuple):
    """Loss of one player over one batch, and the scalars to log beside it."""

    total: Tensor
    """Scalar to minimise; `backward` is called on it."""
    parts: dict[str, Tensor]
    """Detached scalars to log, by metric name such as `logit/real`."""


class Player(nn.Module, ABC):
    """Networks that are trained together, and their loss. A turn of the player updates these networks only.

    The whole player is one module for DistributedDataParallel, so a loss with several passes and gradient penalties
    is still one forward and one backward pass. Networks of other players are passed to `forward`, never registered:
    DDP must not reduce their gradients.
    """

    name: str
    turns: int = 1
    """Turns (optimizer steps) per round."""
    fresh_batch: bool = True
    """True: each turn loads a new batch of real images. False: it reuses the batch of the previous turn."""

    def __init__(self, **owned: nn.Module) -> None:
        super().__init__()
        self.owned = nn.ModuleDict(owned)

    @abstractmethod
    def forward(self, batch: Batch, noise: KeyedNoise, others: Networks) -> Loss:
        """Return the loss over a batch. `others` are the networks of the other players, with gradients off."""

    def after_step(self) -> None:
        """Change the player's networks after each optimizer step, such as weight clipping. Must not sync the device."""


class Tracker(Protocol):
    """State of a game that is updated without gradients, such as the strength of adaptive augmentation.

    A tracker is an `nn.Module` whose buffers are all its state. Checkpoints store them under the tracker's name in
    `Game.trackers`. `update` is called after each turn whose `Loss.parts` has the watched value, with bitwise the same
    mean on every worker.
    """

    watches: str
    """Name of the watched value in `Loss.parts`."""

    def update(self, mean: Tensor, images: int) -> None:
        """Update the buffers after a turn. Must not sync the device.

        Args:
            mean: scalar, mean of the watched value over all slots of all workers.
            images: real images in the turn.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the buffers, see `nn.Module.state_dict`."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Restore the buffers, see `nn.Module.load_state_dict`."""

    def to(self, *, device: torch.device, dtype: torch.dtype) -> object:
        """Move the buffers, see `nn.Module.to`."""


@dataclass(frozen=True)
class Game:
    """Networks and players of one run.

    Attributes:
        networks: trained networks by name; checkpoints store each under that name.
        players: in the order of their turns in a round.
        averaged: names of the networks that have an EMA copy.
        latent: distribution of the noise z that `sample` takes.
        sample: (networks, z [B, Z], labels int64 [B] or None) -> images [B, C, H, W] in [-1, 1].
        classes: K, number of class labels of a conditional game; 0: unconditional.
        frozen: networks that are never trained, by name.
        trackers: state that is updated without gradients, by name.
        kind: (real images shown before a round, rounds before it) -> whatever of them decides which operations the
            round has, such as lazy penalties that are due. A round is captured once for each kind; numbers that change
            come from `KeyedNoise.scheduled`.
    """

    networks: dict[str, nn.Module]
    players: tuple[Player, ...]
    averaged: tuple[str, ...]
    latent: Latent
    sample: Callable[[Networks, Tensor, Tensor | None], Tensor]
    classes: int = 0
    frozen: dict[str, nn.Module] = field(default_factory=dict)
    trackers: dict[str, Tracker] = field(default_factory=dict)
    kind: Callable[[int, int], Hashable] = lambda images, round: None

    def labels(self, start: int, count: int, device: torch.device) -> Tensor | None:
        """Return labels int64 [count] of generated images start to start + count - 1, or None if unconditional.

        Image i has label i mod K, so all classes are equally frequent.
        """
        return torch.arange(start, start + count, device=device) % self.classes if self.classes else None
