"""Minibatch standard deviation: lets the discriminator see that images of a batch are too much alike."""

import torch
from torch import Tensor, nn

GROUP = 4
"""Images that are compared with each other, as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958)."""


class MinibatchStddev(nn.Module):
    """Adds a channel with the standard deviation over a group (Karras et al. 2018, arXiv:1710.10196, section 3).

    Groups are of 4 images of the batch given, or of 3, 2 or 1 where its size is no multiple: of one slot, so that
    the number of workers does not enter.
    """

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C + 1, H, W]
        """x and, equal all over an image, its group's deviation averaged over features and places."""
        batch, _, height, width = x.shape
        group = next(size for size in range(GROUP, 0, -1) if batch % size == 0)
        # bf16 would lose small differences.
        groups = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(group, batch // group, *x.shape[1:])
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # [B / group]
        plane = deviation.to(x.dtype).repeat(group)[:, None, None, None].expand(-1, 1, height, width)
        return torch.cat([x, plane], dim=1)
