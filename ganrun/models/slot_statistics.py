"""Running means whose batch statistics are taken per slot, so that they do not depend on the number of workers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token

import torch
from torch import Tensor, nn

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


def is_recording() -> bool:
    """Return True unless the pass is within `without_batch_stats`."""
    return _recording.get()


class SlotStatistics:
    """Part of a layer that records statistics of each pass of a slot.

    Once per round the training loop averages the records over all slots and calls `update_running_stats`. A layer that
    did not run keeps its running statistics.
    """

    momentum_of_round: float
    """Weight of a round's statistics in the update of the running ones."""
    slot = 0
    """Slot of the next passes: its place among those of this worker."""
    recorded: dict[int, list[Tensor]]
    """By slot, the statistics and a 1 of each pass since the last `take_batch_stats`, [N + 1]."""

    def running(self) -> list[Tensor]:
        """Return the running statistics, [N] numbers together, in the order of the records."""
        raise NotImplementedError

    def record(self, statistics: Tensor) -> None:
        """Record the statistics of a pass and a 1, [N + 1], unless the pass repeats another."""
        if not _repeating.get():
            self.recorded.setdefault(self.slot, []).append(statistics)

    def take_batch_stats(self, slots: int) -> list[Tensor]:
        """Return what was recorded since the last call, a row [N + 1] for each slot, and clear the record.

        A row has the mean over the slot's passes, and then 1; zeros if the layer did not run in the slot.
        """
        recorded, self.recorded = self.recorded, {}
        buffers = self.running()
        nothing = buffers[0].new_zeros(sum(map(len, buffers)) + 1)
        return [torch.stack(recorded[slot]).mean(0) if slot in recorded else nothing for slot in range(slots)]


class RunningMean(nn.Module, SlotStatistics):
    """Running mean of vectors that a network is trained on.

    Args:
        size: N, numbers of a vector.
        momentum: weight of a round.
    """

    mean: Tensor

    def __init__(self, size: int, momentum: float) -> None:
        super().__init__()
        self.momentum_of_round, self.recorded = momentum, {}
        self.register_buffer("mean", torch.zeros(size))

    def running(self) -> list[Tensor]:
        """Return the mean."""
        return [self.mean]

    def forward(self, vectors: Tensor) -> None:
        """Record the mean of vectors [B, N], if these depend on what is being trained."""
        if self.training and vectors.requires_grad and is_recording():
            self.record(torch.cat([vectors.detach().mean(0), self.mean.new_ones(1)]))


@torch.no_grad()
def update_running_stats(layers: Sequence[SlotStatistics], sums: Tensor) -> None:
    """Move running statistics of layers towards those of a round. Numbers that are not finite stay.

    Args:
        layers: the layers.
        sums: for each layer [N + 1], joined: the sum over slots of what `take_batch_stats` returns.
    """
    buffers = [(layer.momentum_of_round, each) for layer in layers for each in layer.running()]
    parts = torch.split(sums, [sum(map(len, layer.running())) + 1 for layer in layers])
    # Last the number of slots: 0 / 0 is NaN for a layer that ran in none, and its statistics stay.
    means = torch.cat([part[:-1] / part[-1] for part in parts])
    safe = torch.where(torch.isfinite(means), means, torch.cat([each for _, each in buffers]))
    targets = torch.split(safe, [len(each) for _, each in buffers])
    for momentum in dict(buffers):
        chosen = [number for number, (of, _) in enumerate(buffers) if of == momentum]
        torch._foreach_lerp_([buffers[at][1] for at in chosen], [targets[at] for at in chosen], momentum)
