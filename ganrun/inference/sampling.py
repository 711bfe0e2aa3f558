"""Images from a checkpoint: builds its EMA generator and draws from it."""

import io
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torchvision.io import encode_png

import ganrun
from ganrun.config.load import parse
from ganrun.config.schema import Config
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.pictures import to_picture, to_png
from ganrun.games.build import build_game
from ganrun.run_folder.run_folder import find_checkpoint
from ganrun.storage import Storage
from ganrun.training import checkpoint

STEPS = 8
"""Images of an interpolation between two noises."""
LEAST_SINE = 1e-3
"""Sine of an angle below which the great circle is lost in rounding; a straight line differs from it by 1e-7 there."""


def read_config(storage: Storage, directory: str) -> Config:
    """Read the config of a checkpoint.

    Raises:
        RunError: it is corrupt.
    """
    files = checkpoint.read(storage, directory, only=("config.yaml",))
    return parse(files["config.yaml"], f"{storage.uri}/{directory}/config.yaml")


class Sampler:
    """The EMA generator of a run's newest checkpoint, or of a given one, on the CPU.

    Args:
        where: the folder of a run or of a checkpoint.
        label: of all images; None: each class of a conditional game in turn.

    Raises:
        UserError: there is no checkpoint, or no such label.
        RunError: it is damaged.
    """

    def __init__(self, where: str, label: int | None = None) -> None:
        storage, directory = find_checkpoint(where)
        self.config = read_config(storage, directory)
        self.game = build_game(self.config, torch.device("cpu"))
        for name, network in self.game.networks.items():
            file = f"{name}_ema" if name in self.game.averaged else name
            checkpoint.load_network(storage, directory, file, network)
            network.eval()
        self.label = label
        if label is not None and not 0 <= label < self.game.classes:
            allowed = f"0 to {self.game.classes - 1}" if self.game.classes else "none, since it is not conditional"
            raise UserError(f"--label {label}: labels of {where} are {allowed}")

    @property
    def of_points(self) -> bool:
        """Whether points are generated instead of images."""
        return self.config.data.fields["image"].kind == "point"

    @torch.inference_mode()
    def images(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Noise [B, Z] and, if the game is conditional, labels [B] to images [B, C, H, W] in [-1, 1]."""
        return self.game.sample(self.game.networks, z, label)

    def generated(self, seed: int) -> GeneratedImages:
        """Return the images of a seed, by number: the same that `ganrun evaluate` scores."""
        return GeneratedImages(self.game, self.game.networks, seed, self.label)

    def draw(self, count: int, seed: int) -> Iterator[Tensor]:
        """Yield `count` images in batches [B, C, H, W]."""
        generated = self.generated(seed)
        for start in range(0, count, BATCH):
            yield generated.images(start, min(BATCH, count - start))


def draw_grid(sampler: Sampler, out: Path, count: int, seed: int, interpolate: bool) -> None:
    """One PNG of all images: where classes differ, each has a column of its own, or of walks a row.

    Points are drawn over the modes of the run's data.

    Raises:
        UserError: of points, the data is not there, or its modes are not known.
    """
    if interpolate:
        columns: int | None = STEPS
        walks = [_walk(sampler, row, seed) for row in range(-(-count // STEPS))]
        images = torch.cat(walks)[:count]
    else:
        columns = sampler.game.classes if sampler.game.classes and sampler.label is None else None
        images = torch.cat(list(sampler.draw(count, seed)))
    if sampler.of_points:
        shards = sampler.config.data.shards
        png = to_picture(images, open_data(shards).index, None, {})
        if png is None:
            raise UserError(f"--out {out}: no modes are known of the points of {shards}, to draw them over")
        _write(out, png)
    else:
        _write(out, to_png(images, columns))


def _walk(sampler: Sampler, row: int, seed: int) -> Tensor:
    generated = sampler.generated(seed)
    begin, end = generated.noise(2 * row, 2)
    label = generated.labels(1, row)
    return sampler.images(slerp(begin, end, STEPS), None if label is None else label.expand(STEPS))


def draw_singles(sampler: Sampler, out: Path, count: int, seed: int) -> None:
    """A folder with one PNG an image: 000000.png, 000001.png, ...

    Raises:
        UserError: what is generated are points.
    """
    if sampler.of_points:
        raise UserError(f"--out {out}: points make one picture; name a .png file")
    number = 0
    for batch in sampler.draw(count, seed):
        for image in to_uint8(batch):
            _write(out / f"{number:06d}.png", bytes(encode_png(image).numpy()))
            number += 1


def write_weights(sampler: Sampler, out: Path) -> None:
    """The EMA networks as safetensors; the metadata says how to build them."""
    tensors = {
        (key if len(sampler.game.averaged) == 1 else f"{name}.{key}"): value.contiguous()
        for name in sampler.game.averaged
        for key, value in sampler.game.networks[name].state_dict().items()
    }
    metadata = {"ganrun": ganrun.__version__, "config": sampler.config.model_dump_json()}
    _write(out, save_tensors(tensors, metadata))


def write_program(sampler: Sampler, out: Path) -> None:
    """The way from noise [B, Z] (and labels [B]) to images [B, C, H, W], as a torch.export program for any B."""
    generated = sampler.generated(0)
    inputs = [tensor for tensor in (generated.noise(0, 2), generated.labels(2)) if tensor is not None]
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(_Program(sampler), tuple(inputs), dynamic_shapes=[batch] * len(inputs))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    _write(out, buffer.getvalue())


class _Program(nn.Module):
    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        # A program is packed without complaint only in the plain memory layout.
        self.networks = nn.ModuleDict(sampler.game.networks).to(memory_format=torch.contiguous_format)
        self._sample = sampler.game.sample

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self._sample(dict(self.networks.items()), z, label)


def slerp(begin: Tensor, end: Tensor, steps: int) -> Tensor:
    """Interpolate from one noise [Z] to another along the great circle, [steps, Z] (White 2016, arXiv:1609.04468).

    Linear where no great circle is defined: between (nearly) equal or opposite directions, and from or to zero.
    """
    share = torch.linspace(0, 1, steps, dtype=begin.dtype)[:, None]
    angle = torch.arccos((begin @ end / (begin.norm() * end.norm())).clamp(-1, 1))
    if not angle.sin() > LEAST_SINE:  # Also if the angle is NaN.
        return (1 - share) * begin + share * end
    return (torch.sin((1 - share) * angle) * begin + torch.sin(share * angle) * end) / torch.sin(angle)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror}") from error
