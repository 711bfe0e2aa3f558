"""One-hot codes of labels."""

import torch
from torch import Tensor


def one_hot(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return 1 at the class of each label and 0 elsewhere, int64 [B] -> [B, K].

    `F.one_hot` reads the labels back to the host to check them, so a round with it cannot be captured.
    """
    return (label[:, None] == torch.arange(classes, device=label.device)).to(dtype)
