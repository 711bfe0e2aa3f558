"""Built-in optimizers of a player.

They take `found_inf`, so a step with a non-finite gradient is skipped on the device. torch's fused kernels are used
but for Adam whose betas change: the kernel reads them as Python numbers, which a captured round would repeat.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.config.schedules import value_at
from ganrun.config.schema_optimizer import PlayerOptimizerConfig


class ScheduledAdam(torch.optim.Optimizer):
    """Adam whose learning rate and betas are scalars on the device, with or without decoupled weight decay.

    As in torch, the bias corrections take the betas of the step. The state has torch's names.

    Args:
        parameters: what it steps.
        settings: section of the player; its learning rate and betas are those of the first step.
        weight_decay: decoupled weight decay (AdamW).
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None
    """1 if the step is to be skipped, else 0 or None."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig, weight_decay: float = 0.0
    ) -> None:
        rate, betas = value_at(settings.learning_rate, 0), settings.betas_at(0)
        super().__init__(parameters, {"lr": rate, "betas": betas, "eps": settings.epsilon, "decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step, unless `found_inf` is 1."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, requires_grad=False)
            state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)
        rate, beta1, beta2, skipped = (
            torch.as_tensor(each, dtype=parameter.dtype, device=parameter.device)
            for each in (group["lr"], *group["betas"], 0.0 if self.found_inf is None else self.found_inf)
        )
        taken = 1 - skipped
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        # Towards themselves, moments stay as they are.
        mean.lerp_(torch.where(taken > 0, gradient, mean), 1 - beta1)
        square.lerp_(torch.where(taken > 0, gradient.square(), square), 1 - beta2)
        state["step"] += taken
        steps = state["step"].clamp(min=1).to(parameter.dtype)
        spread = (square / (1 - beta2.pow(steps))).sqrt_().add_(group["eps"])
        if group["decay"]:
            parameter.mul_(1 - taken * rate * group["decay"])
        parameter.sub_((mean / spread).mul_(taken * rate / (1 - beta1.pow(steps))))


def adam(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1)."""
    if settings.betas_change:
        return ScheduledAdam(parameters, settings)
    found, rate, betas = list(parameters), value_at(settings.learning_rate, 0), settings.betas_at(0)
    return torch.optim.Adam(found, rate, betas, settings.epsilon, fused=True, capturable=found[0].is_cuda)


def adamw(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""
    decay = settings.weight_decay
    if settings.betas_change:
        return ScheduledAdam(parameters, settings, decay)
    found, rate, betas = list(parameters), value_at(settings.learning_rate, 0), settings.betas_at(0)
    return torch.optim.AdamW(found, rate, betas, settings.epsilon, decay, fused=True, capturable=found[0].is_cuda)


def sgd(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return stochastic gradient descent: v <- momentum v + g + weight_decay w; w <- w - learning_rate v."""
    momentum, decay = settings.momentum, settings.weight_decay
    found = torch.optim.SGD(parameters, value_at(settings.learning_rate, 0), momentum, weight_decay=decay, fused=True)
    if momentum:
        # torch's first fused step leaves the buffers uninitialised where it is skipped for a non-finite gradient.
        for group in found.param_groups:
            for parameter in group["params"]:
                found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return found


ELEMENTWISE = (adam, adamw, sgd)
"""Optimizers that treat every number alike: they may step any number of parameters as one."""
