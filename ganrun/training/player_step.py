"""One turn of a player: forward and backward for each slot, gradients averaged over the slots, one optimizer step."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganrun.config.registry import OPTIMIZERS
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.errors import UserError
from ganrun.games.game import Batch, Game, Player
from ganrun.models.spectral_norm import SpectralNorm
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.series import GRADIENT_NORM, LOSS
from ganrun.telemetry.spans import span
from ganrun.telemetry.timer import Timer

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


class PlayerStep:
    """A player, wrapped in DistributedDataParallel if there are several workers, with its optimizer.

    Args:
        player: the player; only its own networks are updated.
        game: the game, whose other networks are frozen during the player's turn.
        settings: settings of the optimizer.
        slots: the slots of this worker.
        bf16: run the forward pass under bfloat16 autocast.
    """

    def __init__(self, player: Player, game: Game, settings: PlayerOptimizerConfig, slots: Slots, bf16: bool) -> None:
        self.player, self.settings, self.slots, self.bf16 = player, settings, slots, bf16
        self.others = {
            name: network for name, network in game.networks.items() if name not in player.owned
        } | game.frozen
        self.parameters = dict(player.owned.named_parameters())
        self.device = next(iter(self.parameters.values())).device
        for network in self.others.values():
            network.requires_grad_(False)
        player.owned.requires_grad_(True)
        self._spectral_norms = [module for module in player.owned.modules() if isinstance(module, SpectralNorm)]
        self.timer = Timer(self.device)
        self.module: nn.Module = player
        if slots.workers > 1:
            self.module = DistributedDataParallel(player, **_NO_BUFFER_SYNC, gradient_as_bucket_view=True)
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS[settings.name](self.parameters.values(), settings)
        # Fused optimizers skip a step on the device, as they do for GradScaler.
        self._skips_on_device = getattr(self.optimizer, "_step_supports_amp_scaling", False)

    def step(self, batches: Sequence[Batch], noises: Sequence[KeyedNoise], learning_rate: float) -> StepResult:
        """Update this player's networks by one step, on one batch and one noise of each owned slot."""
        for network in self.others.values():
            network.requires_grad_(False)
        self.player.owned.requires_grad_(True)
        for module in self._spectral_norms:
            module.iterate()
        self.timer.start()
        self.optimizer.zero_grad(set_to_none=True)
        rows = []
        for number, (batch, noise) in enumerate(zip(batches, noises, strict=True)):
            last = number == len(batches) - 1
            with self._reduced(last), self._autocast(), span(f"{self.player.name}: forward"):
                loss = self.module(batch, noise, self.others)
            if last:
                self.timer.stop()  # The last backward pass waits for the other ranks.
            with self._reduced(last), span(f"{self.player.name}: backward"):
                (loss.total * self.slots.weight).backward()
            rows.append({LOSS.of(self.player.name): loss.total.detach(), **loss.parts})
        with span(f"{self.player.name}: step"):
            return self._step(rows, learning_rate)

    @property
    def rounds(self) -> int:
        """Number of rounds since the timer was last read."""
        return self.timer.steps // self.player.turns

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimizer's state by name, such as PARAMETER.exp_avg, PARAMETER.exp_avg_sq, PARAMETER.step.

        Raises:
            UserError: an optimizer of the user's own keeps something that is no tensor.
        """
        found = {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
            if value is not None
        }
        if strange := [key for key, value in found.items() if not isinstance(value, Tensor)]:
            raise UserError(
                f"optimizer.{self.player.name}.name: {self.settings.name} keeps {strange[0]} as "
                f"{type(found[strange[0]]).__name__}; a checkpoint holds tensors only: keep a tensor"
            )
        return found

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the optimizer's state. A parameter that never had a gradient has none.

        Raises:
            KeyError, RuntimeError: the state is not that of these parameters.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for place, value in state_dict.items():
            name, _, key = place.rpartition(".")
            parameter = self.parameters[name]
            if value.shape == parameter.shape and key != "step":
                # Moments in the parameter's own layout: the fused kernel walks both in memory order.
                value = torch.empty_like(parameter, requires_grad=False).copy_(value)
            else:
                value = value.to(parameter.device, copy=True)
            found.setdefault(name, {})[key] = value
        for name, state in found.items():
            self.optimizer.state[self.parameters[name]] = state

    def _step(self, rows: list[dict[str, Tensor]], learning_rate: float) -> StepResult:
        """Step the optimizer unless a gradient is not finite. Decided on the device, without a sync."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        skipped = (~torch.isfinite(norm)).float()
        self.optimizer.param_groups[0]["lr"] = learning_rate
        if clip := self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), clip, norm)
        if self._skips_on_device:
            # The kernel reads both as a GradScaler sets them: with found_inf = 1 it leaves weights, moments and step
            # count unchanged.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
        if self._skips_on_device or not skipped:  # Others wait for the device.
            self.optimizer.step()
        self.player.after_step()
        for row in rows:
            row[GRADIENT_NORM.of(self.player.name)] = norm
        return StepResult(rows, skipped)

    def _reduced(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a slot's pass: DDP all-reduces gradients only in the backward pass of the last slot."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()  # type: ignore[no-any-return]
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Return True if the device computes in bfloat16. Others emulate it, which on a CPU is far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def learning_rate(settings: PlayerOptimizerConfig, images: int, total_images: int) -> float:
    """Return the learning rate after `images`: linear warm-up, then decay to 0 by `settings.schedule`."""
    rate, warmup = settings.learning_rate, settings.warmup_images
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
