"""What an index records of fields beside the first picture: further pictures, embeddings of captions."""

from dataclasses import dataclass
from typing import Any

MOST_NUMBERS = 2**16
"""Most numbers of an embedding, and most captions of a sample."""


@dataclass(frozen=True)
class PictureField:
    """Shape of a further picture of every sample: `size` pixels a side, 1 or 3 `channels`."""

    size: int
    channels: int


@dataclass(frozen=True)
class EmbeddingField:
    """Embeddings of every sample's captions: `size` numbers each, at most `captions` a sample, by an encoder."""

    encoder: str
    sha256: str
    size: int
    captions: int


def embedding_of(found: dict[str, Any] | None) -> EmbeddingField | None:
    """Return the embeddings of an index.

    Raises:
        ValueError, TypeError: their numbers are impossible: an index may come from anybody.
    """
    embedding = None if found is None else EmbeddingField(**found)
    if embedding and not all(type(n) is int and 0 < n <= MOST_NUMBERS for n in (embedding.size, embedding.captions)):
        raise ValueError(f"embeddings of {embedding.size!r} numbers and {embedding.captions!r} captions")
    return embedding


def check_shape(name: str, shape: PictureField) -> None:
    """Refuse an impossible shape of a further picture.

    Raises:
        ValueError: it is no shape.
    """
    if not (type(shape.size) is int and shape.size > 0 and shape.channels in (1, 3)):
        raise ValueError(f"picture {name!r} of {shape.channels!r} channels and {shape.size!r} pixels a side")
