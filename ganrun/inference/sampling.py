"""Samples and exports the EMA generator of a checkpoint."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torchvision.io import encode_png

import ganrun
from ganrun.config.imports import describe
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
"""Images per interpolation."""
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
    """EMA generator of a checkpoint, on the CPU.

    Args:
        where: folder of a run (its newest checkpoint) or of a checkpoint.
        label: label of all images; None: image i of a conditional game has label i mod K.

    Raises:
        UserError: no checkpoint, or no such label.
        RunError: the checkpoint is corrupt.
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
            if not self.game.classes:
                raise UserError(f"--label {label}: {where} is unconditional; leave --label out")
            raise UserError(f"--label {label}: labels of {where} are 0 to {self.game.classes - 1}")

    @property
    def of_points(self) -> bool:
        """True if the run generates points instead of images."""
        return self.config.data.fields["image"].kind == "point"

    @torch.inference_mode()
    def images(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Return images [B, C, H, W] in [-1, 1] for z [B, Z] and labels int64 [B] (None if unconditional)."""
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
    """Write `count` images to one PNG. A conditional game has one class per column.

    With `interpolate` each row is an interpolation of 8 images. Points are plotted over the modes of the run's data.

    Raises:
        UserError: `out` cannot be written; for points, the data cannot be read or its modes are unknown.
    """
    if interpolate:
        columns: int | None = STEPS
        rows = [_interpolation(sampler, row, seed) for row in range(-(-count // STEPS))]
        images = torch.cat(rows)[:count]
    else:
        columns = sampler.game.classes if sampler.game.classes and sampler.label is None else None
        images = torch.cat(list(sampler.draw(count, seed)))
    if sampler.of_points:
        shards = sampler.config.data.shards
        png = to_picture(images, open_data(shards).index, None, {})
        if png is None:
            raise UserError(f"--out {out}: cannot plot points of {shards}: their modes are unknown")
        _write(out, png)
    else:
        _write(out, to_png(images, columns))


def _interpolation(sampler: Sampler, row: int, seed: int) -> Tensor:
    generated = sampler.generated(seed)
    begin, end = generated.noise(2 * row, 2)
    label = generated.labels(1, row)
    return sampler.images(slerp(begin, end, STEPS), None if label is None else label.expand(STEPS))


def draw_singles(sampler: Sampler, out: Path, count: int, seed: int) -> None:
    """Write each image to a PNG of its own in folder `out`: 000000.png, 000001.png, ...

    Raises:
        UserError: the run generates points, or `out` cannot be written.
    """
    if sampler.of_points:
        raise UserError(f"--out {out}: points are plotted in one picture; give a .png file")
    number = 0
    for batch in sampler.draw(count, seed):
        for image in to_uint8(batch):
            _write(out / f"{number:06d}.png", bytes(encode_png(image).numpy()))
            number += 1


def write_weights(sampler: Sampler, out: Path) -> None:
    """Write the EMA weights as safetensors. The metadata holds the version of ganrun and the config as JSON."""
    tensors = {
        (key if len(sampler.game.averaged) == 1 else f"{name}.{key}"): value.contiguous()
        for name in sampler.game.averaged
        for key, value in sampler.game.networks[name].state_dict().items()
    }
    metadata = {"ganrun": ganrun.__version__, "config": sampler.config.model_dump_json()}
    _write(out, save_tensors(tensors, metadata))


def write_program(sampler: Sampler, out: Path) -> None:
    """Write z [B, Z] (and labels [B]) -> images [B, C, H, W] as a torch.export program with dynamic B.

    Raises:
        UserError: torch.export cannot follow the user's own network, or `out` cannot be written.
    """
    generated = sampler.generated(0)
    inputs = [tensor for tensor in (generated.noise(0, 2), generated.labels(2)) if tensor is not None]
    batch = {0: torch.export.Dim("batch", min=1)}
    logging.disable(logging.WARNING)  # torch logs and prints pages about what the message below says.
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            program = torch.export.export(_Program(sampler), tuple(inputs), dynamic_shapes=[batch] * len(inputs))
    except Exception as error:
        raise UserError(f"--out {out}: {_why_no_program(error, sampler.config)}") from error
    finally:
        logging.disable(logging.NOTSET)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    _write(out, buffer.getvalue())


def _why_no_program(error: Exception, config: Config) -> str:
    reason = describe(error, config.run.imports)
    if "specialized it to be a constant" in reason:
        reason = "its sample function has a fixed batch size; take it from the input, as in x.view(len(z), -1)"
    return f"model.name: {config.model.name} cannot be exported as a program ({reason}); export .safetensors instead"


class _Program(nn.Module):
    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        # torch.export warns about channels_last weights. Images of weights with gradients would have one, too.
        self.networks = nn.ModuleDict(sampler.game.networks).to(memory_format=torch.contiguous_format)
        self.networks.requires_grad_(False)
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
        raise UserError(f"--out {path}: cannot write it: {error.strerror}") from error
