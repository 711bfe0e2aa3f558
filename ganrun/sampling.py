"""Images from a checkpoint: builds its averaged generator and draws from it."""

import io
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torchvision.io import encode_png

import ganrun
from ganrun import checkpoint
from ganrun.config import parse
from ganrun.errors import UserError
from ganrun.evaluation.observation import to_uint8
from ganrun.games.build import build_game
from ganrun.picture import to_png
from ganrun.rng import Draw
from ganrun.run_folder import find_checkpoint

BATCH = 64
STEPS = 8
"""Images of a walk from one noise to another."""


class Sampler:
    """The averaged generator of a run's newest checkpoint, or of a given one, on the CPU.

    Args:
        where: the folder of a run or of a checkpoint.

    Raises:
        UserError: there is no checkpoint.
        RunError: it is damaged.
    """

    def __init__(self, where: str) -> None:
        storage, directory = find_checkpoint(where)
        files = checkpoint.read(storage, directory, only=("config.yaml",))
        self.config = parse(files["config.yaml"], f"{storage.uri}/{directory}/config.yaml")
        self.game = build_game(self.config, torch.device("cpu"))
        for name, network in self.game.networks.items():
            file = f"{name}_average" if name in self.game.averaged else name
            checkpoint.load_network(storage, directory, file, network)
            network.eval()

    @torch.inference_mode()
    def images(self, z: Tensor) -> Tensor:
        """Noise [B, Z] to images [B, C, H, W] in [-1, 1]."""
        return self.game.sample(self.game.networks, z)

    def noise(self, start: int, count: int, seed: int) -> Tensor:
        """Noise of the images numbered from `start` on, [count, Z]: each depends on the seed and its number alone."""
        dtype = next(next(iter(self.game.networks.values())).parameters()).dtype
        rows = [
            Draw(seed, 0, number, 0, torch.device("cpu"), dtype).normal(self.game.latent_size, purpose="sample/z")
            for number in range(start, start + count)
        ]
        return torch.stack(rows)

    def draw(self, count: int, seed: int) -> Iterator[Tensor]:
        """`count` images in batches."""
        for start in range(0, count, BATCH):
            yield self.images(self.noise(start, min(BATCH, count - start), seed))


def draw_grid(sampler: Sampler, out: Path, count: int, seed: int, interpolate: bool) -> None:
    """One PNG of all images."""
    if interpolate:
        rows = -(-count // STEPS)
        ends = [sampler.noise(2 * row, 2, seed) for row in range(rows)]
        images = torch.cat([sampler.images(slerp(begin, end, STEPS)) for begin, end in ends])[:count]
        columns = STEPS
    else:
        images = torch.cat(list(sampler.draw(count, seed)))
        columns = None
    _write(out, to_png(images, columns))


def draw_singles(sampler: Sampler, out: Path, count: int, seed: int) -> None:
    """A folder with one PNG an image: 000000.png, 000001.png, ..."""
    number = 0
    for batch in sampler.draw(count, seed):
        for image in to_uint8(batch):
            _write(out / f"{number:06d}.png", bytes(encode_png(image).numpy()))
            number += 1


def write_weights(sampler: Sampler, out: Path) -> None:
    """The averaged networks as safetensors; the metadata says how to build them."""
    tensors = {
        (key if len(sampler.game.averaged) == 1 else f"{name}.{key}"): value.contiguous()
        for name in sampler.game.averaged
        for key, value in sampler.game.networks[name].state_dict().items()
    }
    metadata = {"ganrun": ganrun.__version__, "config": sampler.config.model_dump_json()}
    _write(out, save_tensors(tensors, metadata))


def write_program(sampler: Sampler, out: Path) -> None:
    """The way from noise [B, Z] to images [B, C, H, W], as a torch.export program for any B."""
    program = torch.export.export(
        _Program(sampler), (sampler.noise(0, 2, 0),), dynamic_shapes={"z": {0: torch.export.Dim("batch", min=1)}}
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    _write(out, buffer.getvalue())


class _Program(nn.Module):
    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        # A program is packed without complaint only in the plain memory layout.
        self.networks = nn.ModuleDict(sampler.game.networks).to(memory_format=torch.contiguous_format)
        self._sample = sampler.game.sample

    def forward(self, z: Tensor) -> Tensor:
        return self._sample(dict(self.networks.items()), z)


def slerp(begin: Tensor, end: Tensor, steps: int) -> Tensor:
    """From one noise to another along the great circle, [steps, Z] (White 2016, arXiv:1609.04468)."""
    angle = torch.arccos((begin @ end / (begin.norm() * end.norm())).clamp(-1, 1))
    share = torch.linspace(0, 1, steps, dtype=begin.dtype)[:, None]
    return (torch.sin((1 - share) * angle) * begin + torch.sin(share * angle) * end) / torch.sin(angle)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror}") from error
