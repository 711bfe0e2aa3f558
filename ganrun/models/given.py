"""What generator and discriminator are told beside noise and image, as networks receive it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Given = Mapping[str, Tensor]
"""A condition by name, such as labels int64 [B] or a picture [B, C, H, W] in [-1, 1]; empty without a condition."""


def as_given(given: Given | Tensor | None) -> Given:
    """Return labels, or None, as a condition: networks were called with these before there were other conditions."""
    if given is None:
        return {}
    return {"label": given} if isinstance(given, Tensor) else given


def label_of(given: Given | Tensor | None) -> Tensor | None:
    """Return the labels int64 [B] of a condition; None if it has none."""
    return as_given(given).get("label")


def pictures_of(given: Given | Tensor | None, names: Sequence[str]) -> list[Tensor]:
    """Return the pictures of a condition joined to one, [[B, C, H, W]], in the order of their names; [] without names.

    As a list, so that it can be joined to an image: `torch.cat([images, *pictures_of(given, names)], dim=1)`.
    """
    pictures = [as_given(given)[name] for name in names]
    return [torch.cat(pictures, dim=1)] if pictures else []
