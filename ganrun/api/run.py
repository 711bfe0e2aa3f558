"""A run, or one of its checkpoints, for programs and notebooks."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ganrun.api.pictures import Picture, frames_of, hole_of, pixels_of, png_of, to_pillow
from ganrun.config.load import parse
from ganrun.config.schema import Config
from ganrun.errors import RunError, UserError
from ganrun.inference.exporting import as_module
from ganrun.inference.latent_spaces import SpaceName
from ganrun.inference.predicting import Predictor
from ganrun.inference.projection import Budget, Candidates, Search, projector_of
from ganrun.inference.projection_terms import Weights
from ganrun.inference.sampling import Sampler
from ganrun.inference.saved import find_saved
from ganrun.inference.translation import Translator
from ganrun.preparation.own_pictures import read_drawing
from ganrun.run_folder.curve import read_curve
from ganrun.run_folder.report import distance_name
from ganrun.run_folder.status import is_run
from ganrun.storage import RECORD_BYTES, expand_user, open_storage
from ganrun.telemetry.series import DISTANCES

if TYPE_CHECKING:  # Half a second.
    from pandas import DataFrame


def load(where: str | Path) -> "Run":
    """Return a run.

    Args:
        where: folder or s3:// URI of a run, also one that is being trained, or of a checkpoint; or weights that
            `ganrun export` wrote: the file, or a folder with it.

    Raises:
        UserError: it is none of these.
    """
    run = Run(open_storage(str(where)).uri)  # Absolute: a notebook may change its folder.
    run.config  # noqa: B018 Wrong places are named here, not at the first use.
    return run


class Run:
    """A run whose EMA generator draws images on the CPU. Networks are read when they are first used.

    Attributes:
        uri: folder or s3:// URI of the run, the checkpoint or the exported weights.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __repr__(self) -> str:
        return f"ganrun.load({self.uri!r})"

    @cached_property
    def config(self) -> Config:
        """Config of the run, checked, such as `run.config.model.width`."""
        if self._is_run:
            storage = open_storage(self.uri)
            return parse(storage.read("config.yaml", RECORD_BYTES), f"{storage.uri}/config.yaml")
        return find_saved(self.uri).config

    @cached_property
    def generator(self) -> nn.Module:
        """EMA generator in eval mode without gradients: z [B, Z], if it has one, and the condition (label int64 [B],
        pictures [B, C, H, W] in [-1, 1]) to images [B, C, H, W] in [-1, 1], as in a program of `ganrun export`."""
        return as_module(Sampler(self.uri)).eval()

    @overload
    def sample(
        self,
        count: int = 64,
        seed: int = 0,
        label: int | None = None,
        condition: "Picture | Sequence[Picture] | None" = None,
        *,
        mask: Picture | None = None,
        truncation: float | None = None,
        pictures: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        count: int = 64,
        seed: int = 0,
        label: int | None = None,
        condition: "Picture | Sequence[Picture] | None" = None,
        *,
        mask: Picture | None = None,
        truncation: float | None = None,
        pictures: Literal[True],
    ) -> list[Image.Image]: ...

    def sample(
        self,
        count: int = 64,
        seed: int = 0,
        label: int | None = None,
        condition: "Picture | Sequence[Picture] | None" = None,
        *,
        mask: Picture | None = None,
        truncation: float | None = None,
        pictures: bool = False,
    ) -> Tensor | list[Image.Image]:
        """Draw images, the same as `ganrun sample` for the same seed.

        Args:
            count: number of images; for a clip, of frames that follow it.
            seed: seed of the noise.
            label: class of all images; None: image i of a conditional run has class i mod K.
            condition: a picture of one's own, of which `count` images are made; for a run that continues clips its
                frames, or a video, GIF or folder; None: conditions are made of samples of the run's data.
            mask: the hole in the picture: white is filled; None: it is drawn.
            truncation: of stylegan2: psi, 1 for images as trained (None), less for images nearer to the mean one.
            pictures: return Pillow images, with colours as on a screen.

        Returns:
            Images [count, C, H, W] in [-1, 1], or points [count, C, 1, 1]; or `count` Pillow images.

        Raises:
            UserError: no checkpoint, no such label, or a condition that the run cannot take.
        """
        if count < 1:
            raise UserError(f"count: {count} is not allowed; give at least 1")
        if mask is not None and condition is None:
            raise UserError("mask: is the hole in a picture of your own; give condition=PICTURE, too")
        if truncation is not None and (truncation < 0 or condition is not None):
            raise UserError(f"truncation: {truncation}: give at least 0, and no condition of your own")
        if condition is None:
            sampler = self._sampler.with_label(label)
            sampler = sampler if truncation is None else sampler.truncated(truncation)
            images = torch.cat(list(sampler.draw(count, seed)))
        elif label is not None:
            raise UserError(f"label: {label} does not go with a picture as condition; leave one of them out")
        else:
            images = self._conditioned(count, seed, condition, mask)
        return to_pillow(images) if pictures else images

    def project(
        self,
        picture: Picture,
        seed: int = 0,
        label: int | None = None,
        *,
        steps: int = 200,
        candidates: int = 8,
        space: SpaceName | None = None,
    ) -> Candidates:
        """Return the latents whose images are nearest to a picture, the best first, as `ganrun project` does.

        Args:
            picture: what the images are to look like; what is transparent in it may look like anything.
            seed: seed of the latents that the search begins with.
            label: class of the images; None: the best is searched.
            steps: steps of gradient descent.
            candidates: latents that are searched at once.
            space: z, or of stylegan2 w or w+ (a w for each layer); None: w where there is one.

        Raises:
            UserError: no picture, or a run without latents to search, such as one that translates pictures.
        """
        if candidates < 1 or steps < 1:
            raise UserError(f"candidates: {candidates}, steps: {steps}: give at least 1 of each")
        sampler = self._sampler.with_label(label)
        projector = projector_of(sampler, space)
        channels, size, _ = projector.shape
        if isinstance(picture, str | Path):
            drawing = read_drawing(Path(expand_user(str(picture))), f"picture {picture}", size, channels)
        else:
            drawing = read_drawing(png_of(picture), "picture", size, channels)
        target = projector.target(*drawing)
        search = Search(target, Weights.of_size(size), seed, label)
        return projector.project(search, Budget(steps, math.inf, candidates))

    def curve(self) -> "DataFrame":
        """Return losses and scores over the images shown: a column for each, a row for each number of images.

        Where scores are rarer than ticks their cells are NaN: `curve[["images", "kid"]].dropna()` has them alone.

        Raises:
            UserError: this is no run, such as exported weights.
        """
        from pandas import DataFrame

        lines = self._curve()
        return DataFrame(lines).groupby("images", as_index=False, sort=False).first() if lines else DataFrame()

    def scores(self) -> dict[str, Any]:
        """Return the newest scores by name, with the `images` that had been shown and the full `name` of the distance.

        Raises:
            UserError: this is no run, such as exported weights.
            RunError: it has no scores yet.
        """
        scored = [line for line in self._curve() if any(distance.key in line for distance in DISTANCES)]
        if not scored:
            raise RunError(
                f"{self.uri}: no scores yet; they come every evaluate.every_images, and not at all if it is 0"
            )
        name = distance_name(self.config.model_dump())
        return {"name": name} | {key: value for key, value in scored[-1].items() if key != "time"}

    @cached_property
    def _is_run(self) -> bool:
        return is_run(open_storage(self.uri))

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.uri)

    def _curve(self) -> list[dict[str, Any]]:
        if not self._is_run:
            raise UserError(f"{self.uri}: its networks only, without a curve; load the run that they are of")
        return read_curve(open_storage(self.uri))[0]

    def _conditioned(
        self, count: int, seed: int, condition: "Picture | Sequence[Picture]", mask: Picture | None
    ) -> Tensor:
        """Return images of a picture of one's own, or frames that follow a clip."""
        sampler = self._sampler
        if sampler.game.condition.frames:
            predictor = Predictor(sampler)
            clip = frames_of(condition, predictor)
            past = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2).to(predictor.dtype).div(127.5).sub(1)
            return predictor.predict("condition", past, count, seed)
        if sampler.of_points or not isinstance(condition, str | Path | Image.Image | np.ndarray):
            wanted = "a table of ganrun sample --input" if sampler.of_points else "one picture"
            raise UserError(f"condition: a {type(condition).__name__}, but this run takes {wanted}")
        hole = None if mask is None else hole_of(mask)
        name = Path(condition).stem if isinstance(condition, str | Path) else ""
        images = Translator(sampler, seed, False).images("condition", pixels_of(condition), count, hole, name)
        return torch.stack(images)
