"""Every random stream of a run, keyed by what it is for and never by the rank that draws from it.

A stream is a function of (seed, rollback_count, images, slot, turn, name): the run's seed, how often it has been
rolled back, the real images shown so far, the slot of the batch, the player's turn in the round and a word. So a
run on any number of workers, stopped and resumed or not, draws the same numbers.
"""

import hashlib
import logging
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit seed from whole numbers and words; equal parts give equal seeds on every machine."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_stream(*parts: int | str) -> np.random.Generator:
    """A stream for the order of samples."""
    return np.random.Generator(np.random.Philox(key(*parts)))


@cache
def _note_deprecated_purpose() -> None:
    """Say once a process that modules of before 0.2 call the name of random numbers their purpose."""
    logging.getLogger("ganrun").warning("noise.normal(..., purpose=...) is deprecated: write name=...")


@dataclass(frozen=True)
class KeyedNoise:
    """Random numbers of one player in one turn for one slot.

    Numbers are drawn on the CPU and copied, so that a GPU sees the same ones as the CPU.
    """

    seed: int
    rollback_count: int
    images: int
    slot: int
    device: torch.device
    dtype: torch.dtype
    turn: int = 0
    """Of the player in this round; turns that take no fresh batch differ in nothing else."""
    round: int = 0
    """Rounds before this one, a function of `images`: for what happens in some rounds alone. Keys no stream."""

    def normal(self, *size: int, name: str = "", purpose: str = "") -> Tensor:
        """Standard normal numbers; the same at every call with the same name (formerly `purpose`)."""
        return self._to_device(torch.randn(size, generator=self._stream(name, purpose), dtype=self.dtype))

    def uniform(self, *size: int, name: str = "", purpose: str = "") -> Tensor:
        """Uniform numbers in [0, 1); the same at every call with the same name (formerly `purpose`)."""
        return self._to_device(torch.rand(size, generator=self._stream(name, purpose), dtype=self.dtype))

    def _stream(self, name: str, purpose: str) -> torch.Generator:
        if purpose:
            _note_deprecated_purpose()
        name = name or purpose
        if not name:
            raise TypeError("random numbers need a name of their own: noise.normal(8, name='my_loss/z')")
        seed = key(self.seed, self.rollback_count, self.images, self.slot, self.turn, name)
        return torch.Generator().manual_seed(seed)

    def _to_device(self, numbers: Tensor) -> Tensor:
        if self.device.type == "cuda":
            numbers = numbers.pin_memory()
        return numbers.to(self.device, non_blocking=True)
