"""Adds the embeddings of their captions to samples, as a member `text.npy`."""

import itertools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ganrun.data.captions import EMBEDDING, captions_of, write_embeddings
from ganrun.data.index import EmbeddingField
from ganrun.errors import UserError, escaped
from ganrun.preparation.sources import Item
from ganrun.storage import expand_user

if TYPE_CHECKING:
    from ganrun.models.text_encoder import TextEncoder

CHUNK = 256
"""Samples whose captions are encoded together."""


def open_embedder(name: str | None) -> "Embedder | None":
    """Return the embedder of an option; None without one. Its paths are absolute, as others read them in the index.

    Raises:
        UserError: there is no such encoder.
    """
    if name is None:
        return None
    local = name != "minilm" and "://" not in name
    found = Embedder(os.path.abspath(expand_user(name)) if local else name)
    _ = found.encoder
    return found


@dataclass(frozen=True)
class Embedder:
    """Encodes captions. Pickled to worker processes, each of which opens the encoder.

    Attributes:
        name: name, path or URI of the encoder, see `open_text_encoder`.
    """

    name: str

    @property
    def encoder(self) -> "TextEncoder":
        """The encoder.

        Raises:
            UserError: it is not there.
        """
        from ganrun.models.text_encoder import open_text_encoder  # With torch, which data without captions is spared.

        return open_text_encoder(self.name, "--embed")

    @property
    def field(self) -> EmbeddingField:
        """What the index records of the encoder; the counts follow with the samples."""
        return EmbeddingField(self.encoder.name, self.encoder.sha256, 0, 0)

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield samples with their embeddings. One whose captions cannot be encoded becomes a fault."""
        import torch

        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # The processes share the cores.
        running = iter(items)
        while chunk := list(itertools.islice(running, CHUNK)):
            yield from self._embedded(chunk)

    def _embedded(self, items: list[Item]) -> Iterator[Item]:
        captions = [captions_of(item.members.get("txt", b"").decode(errors="replace")) for item in items]
        faults = [item.fault or self._fault(each) for item, each in zip(items, captions, strict=True)]
        wanted = [each for each, fault in zip(captions, faults, strict=True) if not fault]
        flat = list(itertools.chain.from_iterable(wanted))
        rows = self.encoder.encode(flat) if flat else np.zeros((0, 0), np.float32)
        at = 0
        for item, each, fault in zip(items, captions, faults, strict=True):
            if fault:
                yield replace(item, image=None, fault=fault)
            else:
                try:
                    embedded = write_embeddings(rows[at : at + len(each)])
                except ValueError as error:
                    raise UserError(f"--embed: {self.name} gives {error}; take another encoder") from error
                at += len(each)
                yield replace(item, members={**item.members, EMBEDDING: embedded})

    def _fault(self, captions: list[str]) -> str | None:
        if not captions:
            return "no caption to embed (.txt is missing or empty)"
        found = ((caption, self.encoder.fault(caption)) for caption in captions)
        return next((escaped(f"caption {caption[:40]!r}: {reason}") for caption, reason in found if reason), None)
