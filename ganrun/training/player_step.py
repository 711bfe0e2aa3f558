"""One player's turn: the mean of its loss over the slots, one backward pass each, one step of its optimizer."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganrun.config.schema import AdamConfig
from ganrun.games.game import Batch, Game, Player
from ganrun.models.spectral_norm import SpectralNorm
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.series import GRADIENT_NORM, LOSS
from ganrun.telemetry.spans import span
from ganrun.telemetry.timer import Timer

# Running statistics move once a round (state.py); torch 2.13 gave the argument another name.
_SYNC_ARGUMENT = "forward_sync_buffers"
if _SYNC_ARGUMENT not in inspect.signature(DistributedDataParallel).parameters:
    _SYNC_ARGUMENT = "broadcast_buffers"
_NO_BUFFER_SYNC: dict[str, Any] = {_SYNC_ARGUMENT: False}


class StepResult(NamedTuple):
    """Scalars of one turn, to be read at the tick."""

    rows: list[dict[str, Tensor]]
    """Scalars by metric name, for each slot."""
    skipped: Tensor
    """1 if a gradient was not finite and nothing moved, else 0."""


class PlayerStep:
    """One player with its optimizer: takes its turns."""

    def __init__(self, player: Player, game: Game, settings: AdamConfig, slots: Slots, bf16: bool) -> None:
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
        self.optimizer = torch.optim.Adam(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
        )

    def step(self, batches: Sequence[Batch], noises: Sequence[KeyedNoise], learning_rate: float) -> StepResult:
        """Moves this player's networks, and no others, by one step on a batch of each owned slot."""
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
                self.timer.stop()  # What comes now waits for the other ranks.
            with self._reduced(last), span(f"{self.player.name}: backward"):
                (loss.total * self.slots.weight).backward()
            rows.append({LOSS.of(self.player.name): loss.total.detach(), **loss.parts})
        with span(f"{self.player.name}: step"):
            return self._step(rows, learning_rate)

    @property
    def rounds(self) -> int:
        """Rounds since the timer was last read."""
        return self.timer.steps // self.player.turns

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimizer's state by name: PARAMETER.exp_avg, PARAMETER.exp_avg_sq, PARAMETER.step."""
        state = self.optimizer.state
        return {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in state.get(parameter, {}).items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the optimizer's state. A parameter that never had a gradient has none.

        Raises:
            KeyError, RuntimeError: the state is not that of these parameters.
        """
        for name, parameter in self.parameters.items():
            if f"{name}.step" not in state_dict:
                continue
            # Moments in the parameter's own layout: the fused kernel walks both in memory order.
            self.optimizer.state[parameter] = {
                key: torch.empty_like(parameter, requires_grad=False).copy_(state_dict[f"{name}.{key}"])
                for key in ("exp_avg", "exp_avg_sq")
            } | {"step": state_dict[f"{name}.step"].to(parameter.device, copy=True)}

    def _step(self, rows: list[dict[str, Tensor]], learning_rate: float) -> StepResult:
        """Takes the optimizer's step unless a gradient is not finite; decided on the device, without waiting."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        skipped = (~torch.isfinite(norm)).float()
        self.optimizer.param_groups[0]["lr"] = learning_rate
        # torch.optim.adam's _fused_adam reads these two as a GradScaler sets them: where found_inf is 1 it leaves
        # weights, moments and step count as they are.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
        if clip := self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), clip, norm)
        self.optimizer.step()
        self.player.after_step()
        for row in rows:
            row[GRADIENT_NORM.of(self.player.name)] = norm
        return StepResult(rows, skipped)

    def _reduced(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are summed over the workers once a turn, in the last slot's backward pass."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()  # type: ignore[no-any-return]
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether it computes in bf16; one that does not would emulate it, on a CPU far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def learning_rate(settings: AdamConfig, images: int, total_images: int) -> float:
    """The learning rate after so many images: warm-up to its height, then down to 0 along the schedule."""
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
