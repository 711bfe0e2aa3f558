"""All that varies between rounds of a kind, in fixed memory: images, noise, learning rates, weights of averages.

A round reads nothing else, so a CUDA graph of it can be replayed: only these buffers are filled in between.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganrun.data.decode import Field, RawBatch
from ganrun.rng import KeyedNoise, NoiseRequest
from ganrun.training.flat import ALIGNMENT

RING = 2
"""Host copies of a block: one is filled while the transfer of the other may not have ended."""
MAP_NUMBERS = 2**12
"""Fewest numbers over pixels that a GPU draws itself: a host draws some 9 ns at a number, and fewer in less time than a
launch takes."""
Place = tuple[int, int, int, NoiseRequest]
"""Images since the beginning of the round, slot, turn, and the request without its function."""


class HostRing:
    """A block of numbers in host memory that is copied to the device each round.

    On a GPU the host memory is pinned and there are several copies of it, each with an event: overwriting one whose
    transfer has not ended would corrupt the numbers without an error. On a CPU there is one, which the round reads.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._hosts = [torch.zeros(size, dtype=dtype, pin_memory=on_gpu) for _ in range(RING if on_gpu else 1)]
        self._events: list[Any] = [_event() for _ in self._hosts] if on_gpu else []
        self.block = self._hosts[0] if device.type == "cpu" else torch.zeros(size, dtype=dtype, device=device)
        self._next = 0

    def begin(self) -> Tensor:
        """Return the host memory to fill, once its last transfer has ended."""
        if self._events:
            self._events[self._next].synchronize()
        return self._hosts[self._next]

    def end(self) -> None:
        """Copy what was filled to the device, in the order of its stream."""
        if self.block is not self._hosts[0]:
            self.block.copy_(self._hosts[self._next], non_blocking=True)
        if self._events:
            self._events[self._next].record()
            self._next = (self._next + 1) % len(self._hosts)


def _event() -> Any:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class RoundNoise:
    """Random and scheduled numbers of a round, drawn ahead into fixed memory.

    The first round draws at each call and notes the requests; every further round draws the same ones ahead. The host
    draws them into one block. A GPU draws those over pixels itself, [B, C, H, W]: they are a function of the same keys,
    so they do not depend on the worker, on the order of the draws, or on whether the round is captured. They are other
    numbers than a CPU's, and may be others on a GPU of another kind.

    Args:
        dtype: of the numbers.
        device: of the round.
        fewest: fewest numbers over pixels that the device draws; None: `MAP_NUMBERS` on a GPU; a CPU's host draws all.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, fewest: int | None = None) -> None:
        self.dtype, self.device = dtype, device
        self.fewest = MAP_NUMBERS if fewest is None and device.type == "cuda" else fewest
        self._requests: dict[Place, tuple[KeyedNoise, NoiseRequest]] = {}
        self._views: dict[Place, Tensor] = {}
        self._ring: HostRing | None = None
        self._spans: dict[Place, tuple[int, int]] = {}
        """Requests that the host draws, and their places in its block."""
        self._generator = torch.Generator()
        self._of_device = self._generator if self.fewest is None else torch.Generator(device)
        self.is_complete = False
        """True if all draws of the last round had been drawn ahead."""

    def take(self, noise: KeyedNoise, request: NoiseRequest) -> Tensor:
        """Return the numbers of a request, on the device. Calls with the same place return the same memory."""
        place = (noise.offset, noise.slot, noise.turn, request._replace(value=None))
        if place not in self._views:
            self.is_complete = False
            self._requests[place] = (noise, request)
            self._views[place] = self._first(noise, request)
        return self._views[place]

    def fill(self, noise_of: Callable[[KeyedNoise], KeyedNoise]) -> None:
        """Draw the numbers of the next round. `noise_of` returns the noise of the same turn and slot in that round."""
        if not self._requests:
            self.is_complete = True  # Until a round asks for numbers.
            return
        if not self.is_complete:
            self._lay_out()
        assert self._ring is not None
        host = self._ring.begin()
        for place, (noise, request) in self._requests.items():
            if place in self._spans:
                start, end = self._spans[place]
                noise_of(noise).fill(host[start:end].view(request.size), request, self._generator)
            else:  # In the order of the device's stream: after the last round, before the next one.
                noise_of(noise).fill(self._views[place], request, self._of_device)
        self._ring.end()

    def _is_of_device(self, request: NoiseRequest) -> bool:
        size = torch.Size(request.size)
        over_pixels = len(size) > 3 and min(size[-2:]) > 1
        return self.fewest is not None and over_pixels and size.numel() >= self.fewest

    def _first(self, noise: KeyedNoise, request: NoiseRequest) -> Tensor:
        """Draw the numbers of a request that was not drawn ahead."""
        if self._is_of_device(request):
            memory = torch.empty(request.size, dtype=self.dtype, device=self.device)
            return noise.fill(memory, request, self._of_device)
        return noise.fill(torch.empty(request.size, dtype=self.dtype), request, self._generator).to(self.device)

    def _lay_out(self) -> None:
        step = ALIGNMENT // self.dtype.itemsize
        places = [place for place, (_, request) in self._requests.items() if not self._is_of_device(request)]
        sizes = [torch.Size(place[-1].size).numel() for place in places]
        starts = [0, *itertools.accumulate(-(-size // step) * step for size in sizes)]
        self._spans = {place: (start, start + size) for place, start, size in zip(places, starts, sizes, strict=False)}
        self._ring = HostRing(starts[-1], self.dtype, self.device)
        for place, (start, end) in self._spans.items():
            self._views[place] = self._ring.block[start:end].view(place[-1].size)
        self.is_complete = True


@dataclass(frozen=True)
class Numbers:
    """Numbers of a round."""

    rates: list[tuple[float, float, float]]
    """Learning rate, beta1 and beta2 of each turn."""
    ema_weight: float


class RoundInputs:
    """Inputs of rounds of one kind, in fixed memory on the device.

    Attributes:
        noise: random and scheduled numbers.
        batches: for each fresh batch of the round and each owned slot, its fields.
        rates: learning rate, beta1 and beta2 of each turn: float64 on a CPU and float32 on a GPU, as the fused
            optimizers read the first.
        ema_weight: scalar in the run's dtype.
    """

    def __init__(self, turns: int, dtype: torch.dtype, device: torch.device) -> None:
        self.noise = RoundNoise(dtype, device)
        self.batches: list[list[dict[str, Field]]] = []
        rates = torch.float32 if device.type == "cuda" else torch.float64
        self._rates, self._weight = HostRing(3 * turns, rates, device), HostRing(1, dtype, device)
        self.rates = [turn.unbind() for turn in self._rates.block.view(turns, 3)]
        self.ema_weight = self._weight.block[0]

    def fill(
        self, batches: Sequence[list[RawBatch]], numbers: Numbers, noise_of: Callable[[KeyedNoise], KeyedNoise]
    ) -> None:
        """Write the inputs of the next round."""
        self._fill_batches(batches)
        self._rates.begin().copy_(torch.tensor(numbers.rates, dtype=torch.float64).flatten())
        self._rates.end()
        self._weight.begin().fill_(numbers.ema_weight)
        self._weight.end()
        self.noise.fill(noise_of)

    def _fill_batches(self, batches: Sequence[list[RawBatch]]) -> None:
        if not self.batches:
            self.batches = [[{} for _ in slots] for slots in batches]
        for mine, theirs in zip(self.batches, batches, strict=True):
            for buffers, batch in zip(mine, theirs, strict=True):
                for name, value in batch.items():
                    buffer = buffers.get(name)
                    if isinstance(buffer, Tensor) and isinstance(value, Tensor) and buffer.shape == value.shape:
                        buffer.copy_(value, non_blocking=True)
                    else:
                        buffers[name] = value.clone() if isinstance(value, Tensor) else value
