"""Captions of a sample, and their embeddings."""

import io

import numpy as np
from numpy.typing import NDArray

EMBEDDING = "text.npy"
"""Member of a sample with the embeddings of its captions, float16 [captions, N], as `ganrun prepare --embed` adds."""


def captions_of(text: str) -> list[str]:
    """Return the captions of a text: its lines, without those that are empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_embeddings(content: bytes | memoryview) -> NDArray[np.float32]:
    """Return the embeddings of a sample, [captions, N].

    Raises:
        ValueError: the content is something else.
    """
    rows = np.load(io.BytesIO(content), allow_pickle=False)
    if rows.ndim != 2 or not len(rows) or rows.dtype.kind != "f":
        raise ValueError(f"{rows.dtype} of {list(rows.shape)}, not numbers [captions, N]")
    if not np.isfinite(rows).all():
        raise ValueError("numbers that are not finite")
    floats: NDArray[np.float32] = rows.astype(np.float32)
    return floats


def write_embeddings(rows: NDArray[np.float32]) -> bytes:
    """Return the content of the member for embeddings [captions, N].

    Raises:
        ValueError: a number is not finite, or too large for float16.
    """
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ValueError("an embedding with numbers that are not finite, or above 65,504")
    buffer = io.BytesIO()
    np.save(buffer, halves)
    return buffer.getvalue()
