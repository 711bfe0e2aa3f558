"""Generated images by number, always the same: those that scores are measured on and that `ganrun sample` draws."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.games.conditions import Batch
from ganrun.games.game import Game, Networks
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise, NoiseRequest

BATCH = 64
"""Images per chunk, see `feature_statistics`."""


class ScoredImages(Protocol):
    """Images that can be scored: those of a generator, or pictures in a folder."""

    @property
    def seed(self) -> int:
        """Seed of the images, and of the subsets of a score."""

    @property
    def device(self) -> torch.device:
        """Device of the images."""

    def images(self, start: int, count: int) -> Tensor:
        """Return the images numbered from `start`, a multiple of BATCH: [count, C, H, W] in [-1, 1]."""

    def labels(self, samples: int) -> Tensor | None:
        """Return the labels of the first `samples` images, int64 [samples] on the CPU; None without labels."""

    def given(self, start: int, count: int) -> Given:
        """Return the condition of the images numbered from `start`; empty if there is none."""

    def truth(self, start: int, count: int) -> Tensor | None:
        """Return the real images that belong to them, [count, C, H, W] in [-1, 1]; None if there are none."""

    @property
    def horizons(self) -> int:
        """Horizons of a roll-out that there are real images of; 0: images that no others follow."""

    def later(self, start: int, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what follows images in a roll-out, and the real images, from horizon 2 on; they begin at `start`."""


@dataclass(frozen=True)
class _Rows:
    """Source of the noise of images numbered from `start`: their rows of whole chunks.

    Random numbers of a shape are no beginning of those of a longer shape. Numbers that are drawn in whole chunks of
    BATCH images do not depend on how many are asked for.
    """

    start: int
    count: int

    def take(self, noise: KeyedNoise, request: NoiseRequest) -> Tensor:
        """Return the numbers of a request, whose first dimension must be the images."""
        if request.value is not None:
            return replace(noise, source=None).draw(request)
        if request.size[:1] != (self.count,):
            raise ValueError(
                f"{request.name}: a draw of {list(request.size)} for {self.count} images; these come first"
            )
        first, whole = self.start // BATCH, request._replace(size=(BATCH, *request.size[1:]))
        chunks = [
            replace(noise, slot=chunk * BATCH, source=None).draw(whole)
            for chunk in range(first, -(-(self.start + self.count) // BATCH))
        ]
        return torch.cat(chunks)[self.start - first * BATCH :][: self.count]


@dataclass(frozen=True)
class GeneratedImages:
    """Images that the networks of a game generate from one seed; each depends on the seed and its number alone.

    Attributes:
        game: the game whose `sample` generates them.
        networks: the EMA networks, in eval mode.
        seed: seed of the noise.
        label: the label of all images; None: each class of a conditional game in turn.
        pairs: samples of the data that the conditions are made of; None for labels and unconditional games.
    """

    game: Game
    networks: Networks
    seed: int
    label: int | None = None
    pairs: PairedSamples | None = None

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return self._parameter.dtype

    def images(self, start: int, count: int) -> Tensor:
        """Return the images numbered from `start`, [count, C, H, W] in [-1, 1]."""
        return self.answered(start, self.given(start, count), count, self.noise(start, count))

    @torch.inference_mode()
    def answered(self, start: int, given: Given, count: int, noise: KeyedNoise) -> Tensor:
        """Return images for a condition, [count, C, H, W] in [-1, 1]; their numbers begin at `start`."""
        return self.game.sample(self.networks, count, noise, given)

    @property
    def horizons(self) -> int:
        """Horizons of a roll-out that there are real images of; 0: images that no others follow."""
        return 1 + len(self.game.condition.later) if self.game.condition.frames else 0

    def later(self, start: int, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what follows `images`, numbered from `start`, and the real images, [B, C, H, W], from horizon 2 on."""
        count, found = len(images), []
        given = self.given(start, count) if self.game.condition.later else {}
        for horizon, field in enumerate(self.game.condition.later, 2):
            given = self.game.condition.following(given, images)
            images = self.answered(start, given, count, self.noise(start, count).under(f"horizon/{horizon}"))
            found.append((images, self._samples(start, count)[field]))
        return found

    def noise(self, start: int, count: int) -> KeyedNoise:
        """Return the noise of the images numbered from `start`."""
        noise = KeyedNoise(self.seed, 0, 0, 0, self.device, self.dtype, source=_Rows(start, count))
        return noise.under("evaluate")

    def given(self, start: int, count: int) -> Given:
        """Return the condition of the images numbered from `start`, on the device."""
        given = self.game.condition.by_number(start, count, self.device)
        if given is None:
            return self.game.condition.of(self._samples(start, count), self.noise(start, count).under("condition"))
        if self.label is None or "label" not in given:
            return given
        return {"label": torch.full_like(given["label"], self.label)}

    def captions(self, start: int, count: int) -> list[str] | None:
        """Return the texts below the images numbered from `start`; None without texts."""
        if self.pairs is None or not self.game.condition.caption_field:
            return None
        return self.game.condition.captions(self._samples(start, count), self.noise(start, count).under("condition"))

    def truth(self, start: int, count: int) -> Tensor | None:
        """Return the real images that belong to the conditions, [count, C, H, W] in [-1, 1]; None if there are none."""
        return None if self.pairs is None else self._samples(start, count)[self.pairs.target]

    def labels(self, samples: int, start: int = 0) -> Tensor | None:
        """Return the labels of `samples` images from `start`, int64 [samples] on the CPU; None without labels."""
        return self.given(start, samples)["label"].cpu() if self.game.condition.classes else None

    def _samples(self, start: int, count: int) -> Batch:
        if self.pairs is None:
            raise ValueError("the conditions of this game are made of samples of its data: give `pairs`")
        return self.pairs.batch(start, count, self.device, self.dtype)

    @property
    def _parameter(self) -> Tensor:
        return next(next(iter(self.networks.values())).parameters())
