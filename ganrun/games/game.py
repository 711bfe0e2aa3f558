"""Interface of a game: its networks, and the players that train them.

A new task is a condition (`conditions.py`), or a new `Game` with losses of its own. `gan.py` is the reference
implementation.
"""

import functools
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ganrun.games.conditions import UNCONDITIONAL, Condition, Label
from ganrun.games.conditions import Batch as Batch
from ganrun.games.latent import Latent
from ganrun.games.minimax import Minimax
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise

Networks = Mapping[str, nn.Module]
Sample = Callable[[Networks, int, KeyedNoise, Given], Tensor]
Passes = Callable[[], Iterator[tuple[Batch, KeyedNoise]]]
"""Begins a pass over this worker's share of all training samples, in chunks that are the same for any number of
workers, each with its noise. Every pass is the same. Rank 0 has the first chunk; a rank may have none."""
AddOverRanks = Callable[[Tensor], None]
"""Adds a tensor over the workers, in place. Collective."""


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

    def active(self, images: int) -> bool:
        """Return True if the player takes its turns in a round that begins after `images` real images.

        The images of a round count whether it is active or not.
        """
        return True

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
        latent: distribution of the noise z; None if there is no z.
        sample: (networks, count, noise, condition of `count` images) -> images [count, C, H, W] in [-1, 1]. Draws have
            `count` as their first dimension: an image then does not depend on how many are drawn with it. Games written
            before conditions have (networks, z [B, Z], labels int64 [B] or None), which is still accepted.
        classes: K, number of class labels of a game written before conditions; 0: unconditional.
        frozen: networks that are never trained, by name.
        trackers: state that is updated without gradients, by name.
        kind: (real images shown before a round, rounds before it) -> whatever of them decides which operations the
            round has, such as lazy penalties that are due. A round is captured once for each kind; numbers that change
            come from `KeyedNoise.scheduled`.
        condition: what the networks are told.
        from_z: (networks, z [B, Z], noise, condition) -> images [B, C, H, W] in [-1, 1], for interpolations and
            exported programs; None for a game without z.
        initialise: sets weights by the training samples, before the first round. All workers call it before DDP
            broadcasts: rank 0's weights count. It takes passes instead of the slots' batches, since slots leave out
            the last samples of an epoch, and passes must be alike for a likelihood to be compared.
        log_prob: (networks, batch, noise) -> log-likelihood of each sample of the batch in nats, or a lower bound of
            it, [B]; None for a game without a density.
        log_prob_is: "exact", or which bound of a sample's bits it gives.
        sample_passes: network passes, one after the other, that a batch of samples takes. If it is more than 1,
            pictures are drawn where `evaluate.where: task` scores, never on rank 0 between rounds.
        minimax: the value that two players play for; None if there is none.
    """

    networks: dict[str, nn.Module]
    players: tuple[Player, ...]
    averaged: tuple[str, ...]
    latent: Latent | None
    sample: Sample
    classes: int = 0
    frozen: dict[str, nn.Module] = field(default_factory=dict)
    trackers: dict[str, Tracker] = field(default_factory=dict)
    kind: Callable[[int, int], Hashable] = lambda images, round: None
    condition: Condition = UNCONDITIONAL
    from_z: Callable[[Networks, Tensor, KeyedNoise, Given], Tensor] | None = None
    initialise: Callable[[Passes, AddOverRanks], None] | None = None
    log_prob: Callable[[Networks, Batch, KeyedNoise], Tensor] | None = None
    log_prob_is: str = ""
    sample_passes: int = 1
    minimax: Minimax | None = None

    def __post_init__(self) -> None:
        if self.classes and self.condition is UNCONDITIONAL:
            object.__setattr__(self, "condition", Label(self.classes))
        if self.latent is not None and _takes_z(self.sample):
            _note_deprecated_sample()
            from_z = functools.partial(_from_z, self.sample)
            object.__setattr__(self, "from_z", from_z)
            object.__setattr__(self, "sample", functools.partial(_sample, self.latent, from_z))

    @property
    def samples_slowly(self) -> bool:
        """True if a batch of samples takes many passes."""
        return self.sample_passes > 1

    def kind_of_round(self, images: int, round: int) -> Hashable:
        """Return what decides which operations a round has: `kind`, and which players are active."""
        return self.kind(images, round), tuple(player.active(images) for player in self.players)


def _takes_z(sample: Callable[..., Tensor]) -> bool:
    """Return True for a `sample` written before conditions."""
    return callable(sample) and len(inspect.signature(sample).parameters) == 3


@functools.cache
def _note_deprecated_sample() -> None:
    """Warn once per process about games written before conditions."""
    logging.getLogger("ganrun").warning(
        "Game(sample=...) of (networks, z, label) is deprecated: write sample(networks, count, noise, given)"
    )


def _from_z(old: Callable[..., Tensor], networks: Networks, z: Tensor, noise: KeyedNoise, given: Given) -> Tensor:
    return old(networks, z, given.get("label"))


def _sample(
    latent: Latent, from_z: Callable[..., Tensor], networks: Networks, count: int, noise: KeyedNoise, given: Given
) -> Tensor:
    return from_z(networks, latent.draw(noise, count, "z"), noise, given)
