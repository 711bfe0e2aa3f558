"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174).

The activations of a block are computed again in the backward pass instead of kept from the forward pass. torch's
non-reentrant checkpoints are used, which gradient penalties can differentiate twice. Random numbers need no care: a
network draws them by name from `KeyedNoise`, the same ones again.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ganrun.models.slot_statistics import recomputation


def checkpoint_activations(network: nn.Module) -> None:
    """Keep no activations within the blocks of a network: only the inputs of each. Outputs and gradients stay the same.

    A block is a member of an nn.Sequential or nn.ModuleList that has modules of its own; of nested ones the outermost
    counts. A network without any is one block.
    """
    for block in list(_blocks(network)) or [network]:
        if "forward" not in vars(block):  # Networks may share it.
            block.forward = partial(_forward, block.forward)  # type: ignore[method-assign]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, nn.Sequential | nn.ModuleList) and _has_modules(child):
            yield child
        else:
            yield from _blocks(child)


def _has_modules(module: nn.Module) -> bool:
    """Return True unless all that a module has is a parametrization, such as spectral norm."""
    return any(name != "parametrizations" for name, _ in module.named_children())


def _forward(forward: Callable[..., Any], *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=recomputation)
