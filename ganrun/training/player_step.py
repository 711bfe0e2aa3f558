"""One turn of a player: forward and backward for each slot, gradients averaged over the slots, one optimizer step."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganrun.config.schedules import value_at
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.errors import UserError
from ganrun.games.game import Batch, Game, Loss, Player
from ganrun.models.slot_statistics import SlotStatistics
from ganrun.models.spectral_norm import SpectralNorm
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.series import GRADIENT_NORM, LOSS, part_key
from ganrun.telemetry.spans import span
from ganrun.telemetry.timer import Timer
from ganrun.training.flat import FlatNetwork
from ganrun.training.player_optimizer import PlayerOptimizer

# state.py updates running statistics, once a round. torch 2.13 renamed the argument.
_SYNC_ARGUMENT = "forward_sync_buffers"
if _SYNC_ARGUMENT not in inspect.signature(DistributedDataParallel).parameters:
    _SYNC_ARGUMENT = "broadcast_buffers"
_NO_BUFFER_SYNC: dict[str, Any] = {_SYNC_ARGUMENT: False}


class StepResult(NamedTuple):
    """Scalars of one turn, on the device until the tick."""

    rows: list[dict[str, Tensor]]
    """Scalars by metric name, for each slot."""
    skipped: Tensor
    """1 if a gradient was not finite and the step was skipped, else 0."""


class _Turn(nn.Module):
    """A player's forward pass. Within DDP, which takes every parameter that a result with a gradient needs for used."""

    def __init__(self, player: Player) -> None:
        super().__init__()
        self.player = player
        self._keys: dict[tuple[str, ...], list[str]] = {}
        """Keys at a tick of the parts of a loss, by their names."""

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the scalars of a slot, detached, by their keys at a tick."""
        player, loss = self.player.name, self.player(*arguments)
        if not isinstance(loss, Loss):
            raise UserError(f"player {player}: forward returned a {type(loss).__name__}; return Loss(total, parts)")
        if loss.total.dim() or not loss.total.requires_grad:
            gradient = "a gradient" if loss.total.requires_grad else "no gradient"
            raise UserError(
                f"player {player}: Loss.total has {gradient} and the shape {list(loss.total.shape)}; return a scalar "
                "that depends on the player's networks"
            )
        names = tuple(loss.parts)
        if names not in self._keys:
            self._keys[names] = [_part_key(player, name, value) for name, value in loss.parts.items()]
        values = [value.detach() for value in loss.parts.values()]
        return loss.total, {LOSS.of(player): loss.total.detach(), **dict(zip(self._keys[names], values, strict=True))}


def _part_key(player: str, name: str, value: Any) -> str:
    """Return the key at a tick of a part of a player's loss, which must be a scalar tensor."""
    if not isinstance(value, Tensor) or value.dim():
        found = f"the shape {list(value.shape)}" if isinstance(value, Tensor) else f"the type {type(value).__name__}"
        raise UserError(f"player {player}: Loss.parts: {name!r} has {found}; return a scalar tensor, as .mean() does")
    return part_key(player, name)


class PlayerStep:
    """A player, wrapped in DistributedDataParallel if there are several workers, with its optimizer.

    Args:
        player: the player; only its own networks are updated.
        game: the game, whose other networks are frozen during the player's turn.
        flat: the state of the game's networks in blocks.
        settings: settings of the optimizer.
        slots: the slots of this worker.
        bf16: run the forward pass under bfloat16 autocast.
        unused: a turn may leave parameters without a gradient. DDP then looks for them before each backward pass, which
            takes about 1% of a round, and a GPU waits for the host where it finds any.
    """

    def __init__(
        self,
        player: Player,
        game: Game,
        flat: Mapping[str, FlatNetwork],
        settings: PlayerOptimizerConfig,
        slots: Slots,
        bf16: bool,
        unused: bool = False,
    ) -> None:
        self.player, self.settings, self.slots, self.bf16 = player, settings, slots, bf16
        self.others = {
            name: network for name, network in game.networks.items() if name not in player.owned
        } | game.frozen
        self.parameters = dict(player.owned.named_parameters())
        self.device = next(iter(self.parameters.values())).device
        for network in self.others.values():
            network.requires_grad_(False)
        player.owned.requires_grad_(True)
        self.norms = [module for module in player.owned.modules() if isinstance(module, SlotStatistics)]
        self._spectral_norms = [module for module in player.owned.modules() if isinstance(module, SpectralNorm)]
        self.timer = Timer(self.device)
        self._turn = _Turn(player)
        self.ddp: DistributedDataParallel | None = None
        if slots.workers > 1:
            self.ddp = DistributedDataParallel(
                self._turn, **_NO_BUFFER_SYNC, gradient_as_bucket_view=True, find_unused_parameters=unused
            )
        self.optimizer = PlayerOptimizer(player, flat, settings, unused)

    def step(self, batches: Sequence[Batch], noises: Sequence[KeyedNoise], learning_rate: Tensor) -> StepResult:
        """Update this player's networks by one step: `backward`, then `apply`."""
        return self.apply(self.backward(batches, noises), learning_rate)

    def backward(
        self, batches: Sequence[Batch], noises: Sequence[KeyedNoise], reduced: bool = True
    ) -> list[dict[str, Tensor]]:
        """Run forward and backward passes, and return the scalars to log for each slot.

        Args:
            batches, noises: one for each owned slot.
            reduced: True: DDP averages the gradients over the workers. False: they are this worker's share of the mean,
                and the caller adds `optimizer.gradient_blocks` over the workers.

        Raises:
            UserError: the player's `forward` returned no `Loss` as `Player` asks for.
        """
        for network in self.others.values():
            network.requires_grad_(False)
        self.player.owned.requires_grad_(True)
        for module in self._spectral_norms:
            module.iterate()
        self.timer.start()
        self.optimizer.clear()
        ddp = self.ddp if reduced else None
        weight = self.slots.weight if ddp is not None else 1 / self.slots.total
        rows: list[dict[str, Tensor]] = []
        for number, (batch, noise) in enumerate(zip(batches, noises, strict=True)):
            last = number == len(batches) - 1
            for norm in self.norms:
                norm.slot = number
            # DDP all-reduces gradients only in the backward pass of the last slot.
            with nullcontext() if ddp is None or last else ddp.no_sync():
                with self._autocast(), span(f"{self.player.name}: forward"):
                    total, row = (ddp or self._turn)(batch, noise, self.others)
                rows.append(row)
                self._check_rows(rows)
                if last:
                    self.timer.stop()  # The last backward pass waits for the other ranks.
                with span(f"{self.player.name}: backward"):
                    (total * weight).backward()
        self.optimizer.gather()
        return rows

    def apply(self, rows: list[dict[str, Tensor]], learning_rate: Tensor, betas: Sequence[Tensor] = ()) -> StepResult:
        """Step the optimizer unless a gradient is not finite. Decided on the device, without a sync.

        Args:
            rows: of `backward`.
            learning_rate, betas: scalars in fixed memory, see `PlayerOptimizer.step`.
        """
        with span(f"{self.player.name}: step"):
            norm = self.optimizer.norm()
            skipped = (~torch.isfinite(norm)).float()
            self.optimizer.step(norm, skipped, learning_rate, betas)
            self.player.after_step()
        for row in rows:
            row[GRADIENT_NORM.of(self.player.name)] = norm
        return StepResult(rows, skipped)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimizer's state by name."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the optimizer's state.

        Raises:
            KeyError, RuntimeError: the state is not that of these parameters.
        """
        self.optimizer.load_state_dict(state_dict)

    def _check_rows(self, rows: list[dict[str, Tensor]]) -> None:
        if rows[0].keys() != rows[-1].keys():
            unlike = ", ".join(sorted(rows[0].keys() ^ rows[-1].keys()))
            raise UserError(f"player {self.player.name}: Loss.parts: {unlike} in one slot only; log it in every slot")

    def _autocast(self) -> AbstractContextManager[None]:
        if not self.bf16:
            return nullcontext()
        # The cache of cast weights would outlive a captured region.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.device.type == "cpu")


def has_bf16(device: torch.device) -> bool:
    """Return True if the device computes in bfloat16. Others emulate it, which on a CPU is far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def learning_rate(settings: PlayerOptimizerConfig, images: int, total_images: int) -> float:
    """Return the learning rate after `images`: linear warm-up, then decay to 0 by `settings.schedule`."""
    rate, warmup = value_at(settings.learning_rate, images), settings.warmup_images
    if images < warmup:
        return rate * images / warmup
    share = min((images - warmup) / max(total_images - warmup, 1), 1.0)
    match settings.schedule:
        case "linear":
            return rate * (1 - share)
        case "cosine":
            # Loshchilov & Hutter 2017 (arXiv:1608.03983), eq. 5, one period.
            return rate * (1 + math.cos(math.pi * share)) / 2
    return rate
