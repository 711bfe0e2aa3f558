"""Minibatch standard deviation: a discriminator feature that exposes low variation within a batch (mode collapse)."""

import torch
from torch import Tensor, nn

GROUP = 4
"""Images per group, as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958)."""


class MinibatchStddev(nn.Module):
    """Appends a channel with the standard deviation over a group (Karras et al. 2018, arXiv:1710.10196, section 3).

    The group size is 4, or the largest of 3, 2, 1 that divides the batch. A forward pass sees one slot, so groups do
    not depend on the number of workers.
    """

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C + 1, H, W]
        """Append the standard deviation over the group, averaged over channels and pixels, as a constant plane."""
        batch, _, height, width = x.shape
        group = next(size for size in range(GROUP, 0, -1) if batch % size == 0)
        # bf16 would lose small differences.
        groups = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(group, batch // group, *x.shape[1:])
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # [B / group]
        plane = deviation.to(x.dtype).repeat(group)[:, None, None, None].expand(-1, 1, height, width)
        return torch.cat([x, plane], dim=1)
