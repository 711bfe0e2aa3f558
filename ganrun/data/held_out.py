"""Samples of a shard that are held out of training: a pure function of the shard's hash and size, and of a share.

Neither the seed nor other shards play a part, so the held-out samples are the same in all runs with that share.
"""

import hashlib
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def held_out_numbers(sha256: str, samples: int, share: float) -> list[int]:
    """Return the numbers of a shard's held-out samples, ascending: the round(share x samples) of the lowest hash.

    The hash of a sample is the BLAKE2b of 8 bytes that `printf SHA256:NUMBER | b2sum -l 64` prints.

    Args:
        sha256: SHA-256 of the shard, as in its index.
        samples: number of samples in the shard; they are numbered from 0 in the order of the tar.
        share: share to hold out, from 0, less than 1; halves are rounded to even.
    """

    def by_hash(number: int) -> bytes:
        return hashlib.blake2b(f"{sha256}:{number}".encode(), digest_size=8).digest()

    return sorted(sorted(range(samples), key=by_hash)[: round(share * samples)])


@dataclass(frozen=True)
class Part:
    """Part of the samples of every shard: those that are held out, or those that are not.

    Attributes:
        share: `evaluate.held_out_share`; 0: nothing is held out.
        held_out: True for the held-out samples, False for the others.
    """

    share: float = 0.0
    held_out: bool = False

    def size(self, samples: int) -> int:
        """Return the number of samples of the part in a shard of so many samples."""
        held_out = round(self.share * samples)
        return held_out if self.held_out else samples - held_out

    def of(self, samples: list[T], sha256: str) -> list[T]:
        """Return the samples of the part, in their order, from all samples of the shard with this hash."""
        held_out = set(held_out_numbers(sha256, len(samples), self.share)) if self.share else set()
        return [sample for number, sample in enumerate(samples) if (number in held_out) == self.held_out]


WHOLE = Part()
