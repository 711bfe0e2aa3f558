"""Samples the EMA generator of a checkpoint."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import encode_png

from ganrun.config.schema import EvaluateConfig
from ganrun.data.index import EmbeddingField, open_data
from ganrun.errors import UserError
from ganrun.evaluation.captioned import captioned_png
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.paired_samples import PairedSamples, open_pairs
from ganrun.evaluation.pictures import beside, columns_of, to_picture, to_png
from ganrun.evaluation.table_pictures import filled_picture
from ganrun.games.build import build_game
from ganrun.games.masked import MaskedPoints
from ganrun.inference.saved import find_saved
from ganrun.models.given import Given
from ganrun.models.style import StyleGenerator
from ganrun.rng import shared

Seen = Callable[[int], None]
"""Takes the number of images just drawn."""

STEPS = 8
"""Images per interpolation."""
SMALLEST = 96
"""Pixels a side that smaller images are enlarged to where captions are written below them."""
LEAST_SINE = 1e-3
"""Sine of an angle below which the great circle is lost in rounding; a straight line differs from it by 1e-7 there."""


class Sampler:
    """EMA generator of a checkpoint, on the CPU.

    Args:
        where: folder of a run (its newest checkpoint) or of a checkpoint, or weights of `ganrun export`.
        label: label of all images; None: image i of a conditional game has label i mod K.

    Raises:
        UserError: no checkpoint, or no such label.
        RunError: the checkpoint is corrupt.
    """

    def __init__(self, where: str, label: int | None = None) -> None:
        saved = find_saved(where)
        self.config = saved.config
        self.embedding = EmbeddingField(**saved.embedding) if saved.embedding else None
        """The encoder of the embeddings that the run was trained on."""
        self.game = saved.load(build_game(self.config, torch.device("cpu")))
        for network in self.game.networks.values():
            network.eval()
        self.where, self.label, self.classes = where, label, self.game.condition.classes
        self._check(label)

    def with_label(self, label: int | None) -> "Sampler":
        """Return the sampler of the same networks with this label of all images.

        Raises:
            UserError: there is no such label.
        """
        self._check(label)
        other = copy.copy(self)
        other.label = label
        return other

    def truncated(self, psi: float) -> "Sampler":
        """Return the sampler of images nearer to the mean one: of w_mean + psi (w - w_mean).

        Raises:
            UserError: the generator has no styles.
        """
        generator = self.game.networks.get("generator")
        if not isinstance(generator, StyleGenerator):
            raise UserError(
                f"truncation {psi}: model.name: {self.config.model.name} has no w to truncate; leave it out, or give a "
                "run of stylegan2"
            )
        other, of_psi = copy.copy(self), copy.copy(generator)  # The weights are shared.
        of_psi.truncation = psi
        other.game = replace(self.game, networks=self.game.networks | {"generator": of_psi})
        return other

    def _check(self, label: int | None) -> None:
        if label is not None and not 0 <= label < self.classes:
            if not self.classes:
                raise UserError(f"label {label}: {self.where} has no labels; leave it out")
            raise UserError(f"label {label}: labels of {self.where} are 0 to {self.classes - 1}")

    @property
    def of_points(self) -> bool:
        """True if the run generates points instead of images."""
        return self.config.target.kind == "point"

    @functools.cached_property
    def pairs(self) -> PairedSamples | None:
        """Samples that conditions are made of; None for labels and unconditional games.

        Raises:
            UserError: the run's data cannot be read.
        """
        condition, data = self.game.condition, self.config.data
        if not condition.fields or condition.classes:
            return None
        whole = open_data(data.shards, crop=data.crop)
        return open_pairs(condition, whole, self.config.objective, data, self.config.evaluate)

    def pairs_in(self, shards: str, samples: int) -> PairedSamples | None:
        """Return so many samples of other data that conditions are made of.

        Raises:
            UserError: the data cannot be read.
        """
        data = self.config.data
        settings = EvaluateConfig(samples=samples)
        whole = open_data(shards, key="--data", crop=data.crop)
        return open_pairs(self.game.condition, whole, self.config.objective, data, settings)

    @torch.inference_mode()
    def images(self, z: Tensor, given: Given) -> Tensor:
        """Return images [B, C, H, W] in [-1, 1] for z [B, Z] and a condition.

        Noise within the network is the same for all of them.

        Raises:
            UserError: the generator has no z.
        """
        if self.game.from_z is None:
            raise UserError(f"model.name: {self.config.model.name}: its generator has no z to choose or interpolate")
        return self.game.from_z(self.game.networks, z, shared(self.generated(0).noise(0, len(z))), given)

    def generated(self, seed: int) -> GeneratedImages:
        """Return the images of a seed, by number: the same that `ganrun evaluate` scores."""
        return GeneratedImages(self.game, self.game.networks, seed, self.label, self.pairs)

    def z(self, start: int, count: int, seed: int) -> Tensor:
        """Return z of the images numbered from `start`, [count, Z].

        Raises:
            UserError: the generator has no z.
        """
        if self.game.latent is None:
            raise UserError(f"model.name: {self.config.model.name}: its generator has no z to choose or interpolate")
        return self.game.latent.draw(self.generated(seed).noise(start, count), count, "z")

    def draw(self, count: int, seed: int, seen: Seen = lambda count: None) -> Iterator[Tensor]:
        """Yield `count` images in batches [B, C, H, W]."""
        generated = self.generated(seed)
        for start in range(0, count, BATCH):
            images = generated.images(start, min(BATCH, count - start))
            seen(len(images))
            yield images


def draw_grid(sampler: Sampler, out: Path, count: int, seed: int, interpolate: bool, seen: Seen) -> None:
    """Write `count` images to one PNG: of class labels one per column, of other conditions each beside its condition
    and the real image that belongs to it.

    With `interpolate` each row is an interpolation of 8 images; the last row is whole, too. Points are plotted over the
    modes of the run's data.

    Raises:
        UserError: `out` cannot be written; for points, the data cannot be read or its modes are unknown.
    """
    if interpolate:
        columns: int | None = STEPS
        rows = []
        for row in range(-(-count // STEPS)):
            rows.append(_interpolation(sampler, row, seed))
            seen(STEPS)
        images = torch.cat(rows)
    else:
        columns = sampler.classes if sampler.classes and sampler.label is None else None
        images = torch.cat(list(sampler.draw(count, seed, seen)))
        if captions := sampler.generated(seed).captions(0, len(images)):
            pictures, columns = _beside(sampler, images, seed)
            each = len(pictures) // len(images)
            write_file(out, captioned_png(pictures, captions, max(1, columns // each), smallest=SMALLEST))
            return
        if sampler.pairs is not None and not sampler.of_points:
            images, columns = _beside(sampler, images, seed)
    if isinstance(sampler.game.condition, MaskedPoints):
        write_file(out, _filled(sampler, images, seed))
    elif sampler.of_points:
        shards = sampler.config.data.shards
        png = to_picture(images, open_data(shards).index, None, {})
        if png is None:
            raise UserError(f"--out {out}: cannot plot points of {shards}: their modes are unknown")
        write_file(out, png)
    else:
        write_file(out, to_png(images, columns))


def _filled(sampler: Sampler, points: Tensor, seed: int) -> bytes:
    """Return a picture of the filled numbers of points beside the true ones."""
    generated = sampler.generated(seed)
    truth, given = generated.truth(0, len(points)), generated.given(0, len(points))
    assert truth is not None
    return filled_picture(points, truth, given["mask"], {})


def _beside(sampler: Sampler, images: Tensor, seed: int) -> tuple[Tensor, int]:
    """Return all pictures of the samples, and the columns of their grid."""
    generated, count = sampler.generated(seed), len(images)
    shown = sampler.game.condition.show(generated.given(0, count))
    pictures, of_each = beside(shown, images, generated.truth(0, count), generated.later(0, images))
    return pictures, columns_of(count, of_each)


def _interpolation(sampler: Sampler, row: int, seed: int) -> Tensor:
    begin, end = sampler.z(2 * row, 2, seed)
    given = sampler.generated(seed).given(row, 1)
    steps = {name: value.expand(STEPS, *value.shape[1:]) for name, value in given.items()}
    return sampler.images(slerp(begin, end, STEPS), steps)


def draw_singles(sampler: Sampler, out: Path, count: int, seed: int, seen: Seen) -> None:
    """Write each image to a PNG of its own in folder `out`: 000000.png, 000001.png, ...

    Raises:
        UserError: the run generates points, or `out` cannot be written.
    """
    if sampler.of_points:
        raise UserError(f"--out {out}: points are plotted in one picture; give a .png file")
    number = 0
    for batch in sampler.draw(count, seed, seen):
        for image in to_uint8(batch):
            write_image(out / f"{number:06d}.png", image)
            number += 1


def slerp(begin: Tensor, end: Tensor, steps: int) -> Tensor:
    """Interpolate from one noise [Z] to another along the great circle, [steps, Z] (White 2016, arXiv:1609.04468).

    Linear where no great circle is defined: between (nearly) equal or opposite directions, and from or to zero.
    """
    share = torch.linspace(0, 1, steps, dtype=begin.dtype)[:, None]
    angle = torch.arccos((begin @ end / (begin.norm() * end.norm())).clamp(-1, 1))
    if not angle.sin() > LEAST_SINE:  # Also if the angle is NaN.
        return (1 - share) * begin + share * end
    return (torch.sin((1 - share) * angle) * begin + torch.sin(share * angle) * end) / torch.sin(angle)


def write_image(path: Path, image: Tensor) -> None:
    """Write an image uint8 [C, H, W] as PNG.

    Raises:
        UserError: it cannot be written.
    """
    write_file(path, bytes(encode_png(image).numpy()))


def write_file(path: Path, data: bytes, option: str = "--out") -> None:
    """Write a file that a user asked for by an option.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"{option} {path}: cannot write it: {error.strerror}") from error
