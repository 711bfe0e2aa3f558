"""Random streams of a run, keyed by their purpose and never by the rank.

A stream is a function of (seed, rollback_count, images, slot, turn, name): `run.seed`, the number of rollbacks, the
real images shown so far, the slot of the batch, the turn of the player in the round and a name such as
`generator/z`. A run therefore draws the same numbers on any number of workers, also after a resume.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """Hash integers and strings to a 63-bit seed, the same on every machine and Python version."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """Return a NumPy stream keyed by `parts`, for shuffling and subsets."""
    return np.random.Generator(np.random.Philox(key(*parts)))


@cache
def _note_deprecated_purpose() -> None:
    """Warn once per process about the keyword `purpose` of ganrun 0.1, now `name`."""
    logging.getLogger("ganrun").warning("noise.normal(..., purpose=...) is deprecated: write name=...")


class NoiseRequest(NamedTuple):
    """Request for random numbers, or for a scheduled one."""

    kind: Literal["normal", "uniform", "scheduled"]
    size: tuple[int, ...]
    name: str
    value: Callable[[int], float] | None = None
    """Scheduled number by real images shown; None for random ones."""


class NoiseSource(Protocol):
    """Numbers drawn ahead."""

    def take(self, noise: "KeyedNoise", request: NoiseRequest) -> Tensor:
        """Return the numbers of a request, on the device."""


@dataclass(frozen=True)
class KeyedNoise:
    """Random numbers for one slot in one turn of one player.

    They are drawn on the CPU and copied to the device: CPU and CUDA generators give different numbers for one seed.
    In rounds on a GPU those over pixels are drawn there, see `training.round_inputs.RoundNoise`.

    Attributes:
        seed: `run.seed`.
        rollback_count: rollbacks of the run so far; a rolled-back run must draw other numbers.
        images: real images shown before this turn.
        slot: index in the global batch, 0 .. `data.slots` - 1.
        device: device of the returned tensors.
        dtype: their dtype.
    """

    seed: int
    rollback_count: int
    images: int
    slot: int
    device: torch.device
    dtype: torch.dtype
    turn: int = 0
    """Index of the player's turn in the round. Turns that reuse a batch have equal `images` and differ only in this."""
    round: int = 0
    """Rounds before this one, for work that is done every k-th round. Not part of the key."""
    offset: int = 0
    """Real images shown in this round before the turn. Not part of the key."""
    source: NoiseSource | None = field(default=None, compare=False)
    """Numbers drawn ahead, in fixed memory; None: they are drawn at the call."""
    prefix: str = ""
    """Beginning of the names of all draws."""

    def under(self, name: str) -> "KeyedNoise":
        """Return the noise with `name/` before the name of each draw.

        A network draws under names of its own, such as `dropout/0`. Whoever calls it sets apart the calls of a turn.
        """
        return replace(self, prefix=f"{self.prefix}{name}/")

    @property
    def round_start(self) -> int:
        """Real images shown before this round."""
        return self.images - self.offset

    def normal(self, *size: int, name: str = "", purpose: str = "") -> Tensor:
        """Return N(0, 1) numbers of shape `size`. Calls with equal name and size return equal numbers.

        `purpose` is the deprecated spelling of `name`.

        Raises:
            TypeError: no name.
        """
        return self._take(NoiseRequest("normal", size, self._name(name, purpose)))

    def uniform(self, *size: int, name: str = "", purpose: str = "") -> Tensor:
        """Return U[0, 1) numbers of shape `size`, see `normal`."""
        return self._take(NoiseRequest("uniform", size, self._name(name, purpose)))

    def scheduled(self, value: Callable[[int], float], name: str) -> Tensor:
        """Return `value(images)` as a scalar tensor.

        A number that changes during the run must come from here: a captured round repeats Python numbers as they were.
        """
        return self._take(NoiseRequest("scheduled", (), self._name(name, ""), value))

    def fill(self, out: Tensor, request: NoiseRequest, generator: torch.Generator) -> Tensor:
        """Write the numbers of a request into contiguous memory, and return it.

        Args:
            out: the memory.
            request: what to draw.
            generator: of the device of `out`; the key seeds it.
        """
        if request.value is not None:
            return out.fill_(request.value(self.images))
        generator.manual_seed(key(self.seed, self.rollback_count, self.images, self.slot, self.turn, request.name))
        return out.normal_(generator=generator) if request.kind == "normal" else out.uniform_(generator=generator)

    def _take(self, request: NoiseRequest) -> Tensor:
        return self.draw(request) if self.source is None else self.source.take(self, request)

    def draw(self, request: NoiseRequest) -> Tensor:
        """Return the numbers of a request, not those drawn ahead."""
        numbers = self.fill(torch.empty(request.size, dtype=self.dtype), request, torch.Generator())
        if self.device.type == "cuda":
            numbers = numbers.pin_memory()
        return numbers.to(self.device, non_blocking=True)

    def _name(self, name: str, purpose: str) -> str:
        if purpose:
            _note_deprecated_purpose()
        if not (name or purpose):
            raise TypeError("name is empty: give each draw in a turn its own, as in noise.normal(8, name='my_loss/z')")
        return self.prefix + (name or purpose)


class _Shared:
    """Source of noise that is the same for all images."""

    def take(self, noise: KeyedNoise, request: NoiseRequest) -> Tensor:
        """Return numbers whose first dimension, the images, repeats."""
        if request.value is not None:
            return replace(noise, source=None).draw(request)
        one = request._replace(size=(1, *request.size[1:]))
        return replace(noise, source=None).draw(one).expand(request.size)


def shared(noise: KeyedNoise) -> KeyedNoise:
    """Return the noise of one image for each image of a batch."""
    return replace(noise, source=_Shared())
