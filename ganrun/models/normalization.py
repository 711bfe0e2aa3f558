"""Batch norm with statistics per slot instead of per worker, so that results do not depend on the number of workers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.1
"""Weight of a round's statistics in the update of the running ones, as in `nn.BatchNorm2d`."""

_recording = ContextVar("recording", default=True)
_repeating = ContextVar("repeating", default=False)


@contextmanager
def without_batch_stats() -> Iterator[None]:
    """Keep forward passes within the block, such as those of gradient penalties, out of the running statistics."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def recomputation() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a forward pass and for its repetition in the backward pass.

    The repetition records no statistics, and runs the same kernels: it is within `without_batch_stats` if the forward
    pass is.
    """
    return nullcontext(), _Repetition(_recording.get())


class _Repetition(AbstractContextManager[None]):
    """Context of a repeated forward pass; it is entered once for each backward pass through it."""

    def __init__(self, recording: bool) -> None:
        self._recording = recording
        self._tokens: list[tuple[Token[bool], Token[bool]]] = []

    def __enter__(self) -> None:
        self._tokens.append((_recording.set(self._recording), _repeating.set(True)))

    def __exit__(self, *_: object) -> None:
        recording, repeating = self._tokens.pop()
        _recording.reset(recording)
        _repeating.reset(repeating)


class SlotBatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167) over the batch of one slot.

    In training mode each forward pass normalises with its own batch statistics. It also records them if the layer's
    weight is being trained and the pass is not within `without_batch_stats`. Once per round the training loop averages
    the records over all slots and calls `update_running_stats`. A layer that did not run keeps its running statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.slot = 0
        """Slot of the next passes: its place among those of this worker."""
        self.recorded: dict[int, list[Tensor]] = {}
        """By slot, the (mean, variance, 1) of each pass since the last `take_batch_stats`, [2 C + 1]."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        """Normalise each channel, then scale and shift it."""
        return self._normalise(x, self.weight, self.bias)

    def _normalise(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, gain, bias, False, 0.0, self.eps)
        if not (self.weight.requires_grad and torch.is_grad_enabled() and _recording.get()):
            return F.batch_norm(x, None, None, gain, bias, True, 0.0, self.eps)
        # With momentum 1 the kernel writes the mean and unbiased variance of the batch into the first two parts.
        statistics = torch.ones(2 * self.num_features + 1, device=x.device, dtype=self.weight.dtype)
        if not _repeating.get():
            self.recorded.setdefault(self.slot, []).append(statistics)
        mean, variance = statistics[: self.num_features], statistics[self.num_features : -1]
        return F.batch_norm(x, mean, variance, gain, bias, True, 1.0, self.eps)

    def take_batch_stats(self, slots: int) -> list[Tensor]:
        """Return what was recorded since the last call, a row [2 C + 1] for each slot, and clear the record.

        A row has the mean over the slot's passes, and then 1; zeros if the layer did not run in the slot.
        """
        recorded, self.recorded = self.recorded, {}
        nothing = self.weight.new_zeros(2 * self.num_features + 1)
        return [torch.stack(recorded[slot]).mean(0) if slot in recorded else nothing for slot in range(slots)]


@torch.no_grad()
def update_running_stats(norms: Sequence[SlotBatchNorm2d], sums: Tensor) -> None:
    """Move running means and variances of layers towards those of a round. Channels that are not finite stay.

    Args:
        norms: the layers.
        sums: for each layer [2 C + 1], joined: the sum over slots of what `take_batch_stats` returns.
    """
    parts = torch.split(sums, [2 * norm.num_features + 1 for norm in norms])
    # Last the number of slots: 0 / 0 is NaN for a layer that ran in none, and its statistics stay.
    means = torch.cat([part[:-1] / part[-1] for part in parts])
    running = [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]
    safe = torch.where(torch.isfinite(means), means, torch.cat(running))
    torch._foreach_lerp_(running, torch.split(safe, [len(each) for each in running]), MOMENTUM)


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
