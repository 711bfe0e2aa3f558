"""Built-in optimizers of a player.

They are fused: they take `found_inf`, so a step with a non-finite gradient is skipped on the device.
"""

from collections.abc import Iterable

import torch
from torch import nn

from ganrun.config.schema_optimizer import PlayerOptimizerConfig


def adam(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1)."""
    betas = (settings.beta1, settings.beta2)
    return torch.optim.Adam(parameters, settings.learning_rate, betas, settings.epsilon, fused=True)


def adamw(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    return torch.optim.AdamW(parameters, settings.learning_rate, betas, settings.epsilon, decay, fused=True)


def sgd(parameters: Iterable[nn.Parameter], settings: PlayerOptimizerConfig) -> torch.optim.Optimizer:
    """Return stochastic gradient descent: v <- momentum v + g + weight_decay w; w <- w - learning_rate v."""
    momentum, decay = settings.momentum, settings.weight_decay
    found = torch.optim.SGD(parameters, settings.learning_rate, momentum, weight_decay=decay, fused=True)
    if momentum:
        # torch's first fused step leaves the buffers uninitialised where it is skipped for a non-finite gradient.
        for group in found.param_groups:
            for parameter in group["params"]:
                found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return found
