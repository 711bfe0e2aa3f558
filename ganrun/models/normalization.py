"""Batch norm with statistics per slot instead of per worker, so that results do not depend on the number of workers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.models.slot_statistics import SlotStatistics, is_recording

MOMENTUM = 0.1
"""Weight of a round's statistics in the update of the running ones, as in `nn.BatchNorm2d`."""


class SlotBatchNorm2d(nn.BatchNorm2d, SlotStatistics):
    """Batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167) over the batch of one slot.

    In training mode each forward pass normalises with its own batch statistics. It also records them if the layer's
    weight is being trained and the pass is not within `without_batch_stats`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.momentum_of_round, self.recorded = MOMENTUM, {}

    def running(self) -> list[Tensor]:
        """Return running mean and variance, [C] each."""
        return [each for each in (self.running_mean, self.running_var) if each is not None]

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        """Normalise each channel, then scale and shift it."""
        return self._normalise(x, self.weight, self.bias)

    def _normalise(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, gain, bias, False, 0.0, self.eps)
        if not (self.weight.requires_grad and torch.is_grad_enabled() and is_recording()):
            return F.batch_norm(x, None, None, gain, bias, True, 0.0, self.eps)
        # With momentum 1 the kernel writes the mean and unbiased variance of the batch into the first two parts.
        statistics = torch.ones(2 * self.num_features + 1, device=x.device, dtype=self.weight.dtype)
        self.record(statistics)
        mean, variance = statistics[: self.num_features], statistics[self.num_features : -1]
        return F.batch_norm(x, mean, variance, gain, bias, True, 1.0, self.eps)


class SlotConditionalBatchNorm2d(SlotBatchNorm2d):
    """Conditional batch norm over the batch of one slot: gain and bias depend on the class of the image.

    Dumoulin et al. 2017 (arXiv:1610.07629); in a GAN generator, Miyato & Koyama 2018 (arXiv:1802.05637). Weight and
    bias are [K, C], initialised to 1 and 0.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]  # [B, C, H, W], int64 [B]
        """Normalise each channel over all classes, then scale and shift it by the row of the image's class."""
        y = self._normalise(x, None, None)
        gain, bias = (F.embedding(label, table)[:, :, None, None].to(y.dtype) for table in (self.weight, self.bias))
        return y * gain + bias
