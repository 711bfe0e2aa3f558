"""Condition of a generator or discriminator as networks receive it, beside noise and image."""

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


def pictures_of(given: Given | Tensor | None, names: Sequence[str]) -> Tensor:
    """Return the pictures of a condition joined in the order of `names`, [B, C', H, W]."""
    pictures = [as_given(given)[name] for name in names]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures, dim=1)


def with_pictures(images: Tensor, given: Given | Tensor | None, names: Sequence[str]) -> Tensor:
    """Return images [B, C, H, W] with the pictures of a condition joined, [B, C + C', H, W]."""
    return torch.cat([images, pictures_of(given, names)], dim=1) if names else images
