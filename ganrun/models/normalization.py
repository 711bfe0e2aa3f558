"""Batch normalisation whose statistics are per slot, so that the number of workers does not enter."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.1
"""Share of a round's statistics in the running ones."""

_noting = ContextVar("noting", default=True)


@contextmanager
def without_batch_stats() -> Iterator[None]:
    """Within it forward passes leave no trace in running statistics, such as those of penalties."""
    token = _noting.set(False)
    try:
        yield
    finally:
        _noting.reset(token)


class SlotBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) over one slot's batch.

    In training, each forward normalises with the statistics of its own batch and, while its weight is being
    trained and the pass is not `without_batch_stats`, keeps them. `update_running_stats` then moves the running
    statistics once a round by the mean over the slots.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.noted: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        """Normalises each channel."""
        return self._normalise(x, self.weight, self.bias)

    def _normalise(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, gain, bias, False, 0.0, self.eps)
        if not (self.weight.requires_grad and torch.is_grad_enabled() and _noting.get()):
            return F.batch_norm(x, None, None, gain, bias, True, 0.0, self.eps)
        # With momentum 1 the kernel leaves the batch's mean and unbiased variance in these two rows.
        statistics = torch.zeros(2, self.num_features, device=x.device, dtype=self.weight.dtype)
        self.noted.append(statistics)
        return F.batch_norm(x, statistics[0], statistics[1], gain, bias, True, 1.0, self.eps)

    def take_batch_stats(self) -> Tensor:
        """The statistics noted since the last call, [forwards, 2, C]."""
        noted, self.noted = torch.stack(self.noted), []
        return noted

    @torch.no_grad()
    def update_running_stats(self, statistics: Tensor) -> None:
        """Moves the running mean and variance towards a round's, [2, C]; not at all where those are not finite."""
        assert self.running_mean is not None
        assert self.running_var is not None
        for running, new in zip((self.running_mean, self.running_var), statistics, strict=True):
            running.lerp_(torch.where(torch.isfinite(new), new, running), MOMENTUM)


class SlotConditionalBatchNorm2d(SlotBatchNorm2d):
    """Batch normalisation over one slot's batch whose gain and bias are those of the image's class.

    Dumoulin et al. 2017 (arXiv:1610.07629); in a generator, Miyato & Koyama 2018 (arXiv:1802.05637).
    Weight and bias are [K, C], a row a class, and begin as 1 and 0.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]  # [B, C, H, W], int64 [B]
        """Normalises each channel, whatever the classes, then scales and shifts it by the image's class."""
        y = self._normalise(x, None, None)
        gain, bias = (F.embedding(label, table)[:, :, None, None].to(y.dtype) for table in (self.weight, self.bias))
        return y * gain + bias
