"""Conditions: what both networks are told, G(z, c) and D(x, c).

A task is a condition: class label, source picture, those of `low_resolution.py`, `masked.py`, `past_frames.py` and
`text.py`, and those of `run.imports`. Mirza & Osindero 2014 (arXiv:1411.1784), eq. 2: c is that of the real batch, so
c[i] belongs to x[i], and conditions are as frequent as in the data.

Shapes: B batch, C channels, H and W pixels, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ganrun.config.own import Own
from ganrun.config.registry import CONDITIONS, offered
from ganrun.config.schema import DataConfig, ModelConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.errors import UserError
from ganrun.models.given import Given
from ganrun.models.text import TextInput
from ganrun.rng import KeyedNoise

Batch = Mapping[str, Any]
"""Fields of a batch by name, on the device: images [B, C, H, W] in [-1, 1], labels int64 [B], vectors [B, N], texts as
a list of B strings, embeddings of captions [B, captions, N]."""


@dataclass(frozen=True)
class UserInput:
    """Input of a user to generate one image for.

    Attributes:
        name: file or option that it comes from, for messages.
        file: name of its file without folder and ending, by which a mask is drawn; empty: there is none.
        picture: [C, H, W] in [-1, 1], C = 1 or 3; its size is one that the network takes.
        mask: bool [H, W], True in the hole.
        text: a sentence.
        clip: frames in their order, [N, C, H, W] in [-1, 1], C = 1 or 3.
        embedding: that of the sentence, [N].
    """

    name: str
    picture: Tensor | None = None
    mask: Tensor | None = None
    text: str | None = None
    clip: Tensor | None = None
    embedding: Tensor | None = None
    file: str = ""


class Condition:
    """Condition c that G and D receive. This base class is that of unconditional games: nothing.

    It is a function of a batch and of noise, so that conditions can be drawn, such as masks.
    """

    fields: tuple[str, ...] = ()
    """Fields of the batch that it is made of."""
    pictures: Mapping[str, int] = MappingProxyType({})
    """Channels of those of `given` that are pictures. Networks join them to the image, augmentation moves their pixels
    with it."""
    baselines: Mapping[str, Callable[[Given], Tensor]] = MappingProxyType({})
    """Trivial answers by name, (given) -> images [B, C, H, W], that scores are shown beside."""
    data_baselines: tuple[str, ...] = ("mean", "nearest")
    """Those of the training data that scores are shown beside too: the mean image, and that of the nearest picture."""
    classes: int = 0
    """K of class labels; 0: there are none."""
    factor: int = 1
    """Size of the generated image over that of a user's picture."""
    frames: int = 0
    """Frames of the clip that a user gives; 0: a user gives no clip."""
    text: TextInput | None = None
    """Embeddings that networks receive as `given["text"]`; None: there are none."""
    caption_field: str | None = None
    """Field of the texts that are shown below pictures; None: there are none."""
    later: tuple[str, ...] = ()
    """Fields of the real images that follow the generated one, which a roll-out is compared with."""

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the condition of a batch. Draws have the batch as their first dimension."""
        return {}

    def by_number(self, start: int, count: int, device: torch.device) -> Given | None:
        """Return the conditions of samples start to start + count - 1; None if they are made of samples of the data."""
        return None if self.fields else {}

    def complete(self, item: UserInput) -> UserInput:
        """Return a user's whole input, before it is cut into tiles, with what the user left out drawn, such as a mask.

        Raises:
            UserError: a part of it cannot be used.
        """
        if item.mask is not None:
            raise UserError(f"{item.name}: this run fills no holes; leave --mask out")
        return item

    def from_user(self, item: UserInput) -> Given:
        """Return the condition that a user gives, with B = 1.

        Raises:
            UserError: the input is not of this kind.
        """
        if not self.fields:
            raise UserError(f"{item.name}: this run has no condition to give; leave it out")
        raise UserError(f"{item.name}: {type(self).__name__}, the condition of this run, has no from_user; add it")

    def exported(self, given: Given) -> Given:
        """Return what an exported program takes of a condition, without what `completed` makes of it."""
        return given

    def completed(self, exported: Given) -> Given:
        """Return a condition from what `exported` left of it."""
        return exported

    def show(self, given: Given) -> Tensor | None:
        """Return a picture of the condition for people, [B, C, H, W] in [-1, 1], or N in a row, [B, N, C, H, W].

        None if there is none.
        """
        return None

    def captions(self, batch: Batch, noise: KeyedNoise) -> list[str]:
        """Return the texts of a batch that are shown below pictures, of a condition with a `caption_field`."""
        return list(batch[self.caption_field]) if self.caption_field else []

    def finish(self, given: Given, image: Tensor) -> Tensor:
        """Return the generator's output [B, C, H, W] with what is known of it put in, such as known pixels."""
        return image

    def following(self, given: Given, image: Tensor) -> Given:
        """Return the condition of what follows `image` [B, C, H, W], of a condition with `frames`."""
        return given


UNCONDITIONAL = Condition()


class Label(Condition):
    """Class labels, field `label`.

    Args:
        classes: K.
    """

    fields = ("label",)

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the labels of a batch, int64 [B]."""
        return {"label": batch["label"]}

    def by_number(self, start: int, count: int, device: torch.device) -> Given:
        """Return i mod K for sample i, so that all classes are equally frequent."""
        return {"label": torch.arange(start, start + count, device=device) % self.classes}

    def from_user(self, item: UserInput) -> Given:
        """Refuse: a label is a number, no file."""
        raise UserError(f"{item.name}: the condition of this run is a class; give its number as --label")


class Source(Condition):
    """A picture that is to be translated: Isola et al. 2017 (arXiv:1611.07004). G is to return the other of the pair.

    Args:
        field: image field of the batch.
        channels: its channels, 1 or 3.
        generated: channels of the generated images.
    """

    def __init__(self, field: str, channels: int, generated: int) -> None:
        self.fields, self.pictures = (field,), {"source": channels}
        self.baselines = {"input": lambda given: as_channels(given["source"], generated)}

    def of(self, batch: Batch, noise: KeyedNoise) -> Given:
        """Return the pictures of a batch, [B, C, H, W] in [-1, 1]."""
        return {"source": batch[self.fields[0]]}

    def from_user(self, item: UserInput) -> Given:
        """Return the user's picture, in as many channels as those of the data."""
        if item.picture is None:
            raise UserError(f"{item.name}: this run translates pictures; give a picture")
        return {"source": as_channels(item.picture[None], self.pictures["source"])}

    def show(self, given: Given) -> Tensor:
        """Return the pictures themselves."""
        return given["source"]


GREY = (0.299, 0.587, 0.114)
"""Luma of R, G and B (ITU-R BT.601), as Pillow converts."""


def as_channels(pictures: Tensor, channels: int) -> Tensor:
    """Return pictures [B, C, H, W] in so many channels, 1 or 3: grey is repeated, colours become their luma."""
    if pictures.shape[1] == channels:
        return pictures
    if channels == 3:
        return pictures.expand(-1, 3, -1, -1)
    weights = torch.tensor(GREY, dtype=pictures.dtype, device=pictures.device)
    return (pictures * weights.view(3, 1, 1)).sum(1, keepdim=True)


def build_condition(objective: ObjectiveConfig, model: ModelConfig, data: DataConfig, own: Own) -> Condition:
    """Build the condition that `objective.condition` names.

    Raises:
        UserError: a function of the user's own returns something else.
    """
    name = objective.condition_with(model.classes)
    condition = offered(CONDITIONS[name], objective=objective, model=model, data=data, own=own)()
    if not isinstance(condition, Condition):
        raise UserError(f"objective.condition: {name!r} builds a {type(condition).__name__}; return a Condition")
    return condition


def none() -> Condition:
    """Build the condition of unconditional games."""
    return UNCONDITIONAL


def label(model: ModelConfig) -> Condition:
    """Build the condition of class labels."""
    return Label(model.classes)


def source(objective: ObjectiveConfig, data: DataConfig) -> Condition:
    """Build the condition of a paired picture."""
    field = objective.source.field
    assert field is not None  # config/validate_objective.py has checked it.
    return Source(field, data.shape(field)[0], data.shape(objective.target)[0])
