"""Passes in the precision of the weights, within autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast. Programs are exported without it."""
    # torch has no autocast on the meta device, and cannot load an exported program that has one within another.
    if device.type == "meta" or torch.compiler.is_exporting():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
