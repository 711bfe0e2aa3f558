"""Condition `text`: a sentence, as its embedding. G is to return a picture of what it says.

Reed et al. 2016 (arXiv:1605.05396). Embeddings are made by `ganrun prepare --embed`: no encoder runs in a round. A
sample may have several captions, of which one is drawn each time.

Shapes: B batch, N numbers of an embedding.
"""

import torch
from torch import Tensor

from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.data.captions import captions_of
from ganrun.errors import UserError
from ganrun.games.conditions import Batch, Condition, UserInput
from ganrun.models.given import Given
from ganrun.models.text import TextInput
from ganrun.rng import KeyedNoise


class Text(Condition):
    """Embeddings `text` [B, N], scaled to a mean square of 1, so that those of all encoders are of one size.

    Args:
        text: N, and how networks take embeddings.
    """

    fields = ("embedding",)
    caption_field = "text"
    data_baselines = ()

    def __init__(self, text: TextInput) -> None:
        self.text, self.size = text, text.size

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the embedding of one caption of each sample."""
        embeddings: Tensor = batch["embedding"]
        number = _drawn(embeddings, noise)
        chosen = embeddings.gather(1, number[:, None, None].expand(-1, 1, embeddings.shape[2]))
        return {"text": scaled(chosen[:, 0])}

    def captions(self, batch: Batch, noise: KeyedNoise) -> list[str]:
        """Return the captions that `of` draws with the same noise."""
        found = [captions_of(text) for text in batch[self.caption_field]]
        numbers = _drawn(batch["embedding"], noise).tolist()
        return [each[min(number, len(each) - 1)] if each else "" for each, number in zip(found, numbers, strict=True)]

    def from_user(self, item: UserInput) -> Given:
        """Return the embedding of a user's sentence."""
        if item.embedding is None:
            raise UserError(f"{item.name}: this run draws sentences; give one as --text")
        if item.embedding.shape != (self.size,):
            raise UserError(
                f"{item.name}: an embedding of {len(item.embedding)} numbers, but this run has embeddings of "
                f"{self.size}; take the encoder of its data"
            )
        return {"text": scaled(item.embedding[None])}


def scaled(embeddings: Tensor) -> Tensor:
    """Return embeddings [B, N] with a mean square of 1."""
    return embeddings * embeddings.square().mean(1, keepdim=True).clamp(min=1e-12).rsqrt()


def mismatched(given: Given) -> Given:
    """Return each sentence with the picture beside it: the condition, rolled by one within the batch of a slot."""
    return {**given, "text": given["text"].roll(1, 0)}


def interpolated(given: Given) -> Given:
    """Return what lies between each sentence and the one beside it: GAN-INT of Reed et al., eq. 5, with beta = 1/2."""
    return {**given, "text": (given["text"] + given["text"].roll(1, 0)) / 2}


def _drawn(embeddings: Tensor, noise: KeyedNoise) -> Tensor:
    """Return the number of the caption that is drawn of each sample, int64 [B]. Rows beyond the captions are NaN."""
    captions = embeddings[:, :, 0].isfinite().sum(1)
    return torch.minimum((noise.uniform(len(embeddings), name="caption") * captions).long(), captions - 1)


def text(objective: ObjectiveConfig) -> Condition:
    """Build the condition of `objective.text`."""
    settings = objective.text
    return Text(TextInput(settings.size, settings.projected, settings.conditioning_augmentation > 0))
