"""Passes in the precision of the weights, within autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast."""
    if device.type == "meta":  # torch has no autocast for it.
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
