"""Exports the EMA generator of a checkpoint: its weights, a program that needs only torch, or an ONNX model."""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.export import ExportedProgram

import ganrun
from ganrun.config.imports import describe
from ganrun.errors import UserError
from ganrun.inference.sampling import Sampler, write_file
from ganrun.models.given import Given
from ganrun.rng import KeyedNoise, NoiseRequest

OPSET = 18
"""Version of the operators of exported models. Their IR version is 10, which onnxruntime 1.18 and later read."""


def write_weights(sampler: Sampler, out: Path) -> None:
    """Write the networks that samples are drawn from as safetensors, with their EMA weights.

    The metadata holds the names of the networks, the version of ganrun and the config as JSON.

    Raises:
        UserError: `out` cannot be written.
    """
    names = _sampled_networks(sampler)
    tensors = {
        (key if len(names) == 1 else f"{name}.{key}"): value.contiguous()
        for name in names
        for key, value in sampler.game.networks[name].state_dict().items()
    }
    config = sampler.config.model_dump_json()
    metadata = {"ganrun": ganrun.__version__, "config": config, "networks": json.dumps(names)}
    if sampler.embedding:
        metadata["embedding"] = json.dumps(asdict(sampler.embedding))
    write_file(out, save_tensors(tensors, metadata))


def as_module(sampler: Sampler) -> nn.Module:
    """Return the EMA generator as a module that takes and returns what the program of `write_program` does."""
    return _Program(sampler, *_example_inputs(sampler))


def write_program(sampler: Sampler, out: Path) -> None:
    """Write a torch.export program with dynamic B.

    It takes z [B, Z], if the generator has one, and what the condition consists of (labels int64 [B], pictures
    [B, C, H, W] in [-1, 1], embeddings [B, N] with a mean square of 1), and returns images [B, C, H, W]. Dropout draws
    from torch's global stream.

    Raises:
        UserError: torch.export cannot follow the user's own network, or `out` cannot be written.
    """
    program, _ = _program_of(sampler, out)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_file(out, buffer.getvalue())


def write_onnx(sampler: Sampler, out: Path) -> None:
    """Write an ONNX model of opset OPSET with dynamic B: inputs as of `write_program` by name, output `images`.

    The metadata holds the version of ganrun and the config as JSON.

    Raises:
        UserError: a package is missing, the generator uses an operator that ONNX lacks, or `out` cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch.onnx needs it.
    except ImportError as error:
        raise UserError(f"--out {out}: {error.name} is missing: pip install 'ganrun[onnx]'") from error
    program, names = _program_of(sampler, out)
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["images"],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise UserError(f"--out {out}: {_why_no_onnx(error, sampler)}") from error
    assert made is not None
    model = made.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # torch calls it s0 or the like.
    onnx.helper.set_model_props(model, {"ganrun": ganrun.__version__, "config": sampler.config.model_dump_json()})
    write_file(out, model.SerializeToString())


def _program_of(sampler: Sampler, out: Path) -> tuple[ExportedProgram, list[str]]:
    """Return the program of a generator, and the names of its inputs."""
    inputs, fields = _example_inputs(sampler)
    batch = {0: torch.export.Dim("batch", min=1)}
    try:
        with _quiet():
            shapes = ((batch,) * len(inputs),)
            program = torch.export.export(_Program(sampler, inputs, fields), inputs, dynamic_shapes=shapes)
    except Exception as error:
        raise UserError(f"--out {out}: {_why_no_program(error, sampler)}") from error
    return program, ["z"] * (len(inputs) - len(fields)) + list(fields)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress pages that torch logs and prints about what the one line of an error says."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _why_no_onnx(error: Exception, sampler: Sampler) -> str:
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error) + str(error.__cause__))
    reason = f"ONNX has no operator for {found[1]}" if found else str(error).strip().partition("\n")[0]
    return f"model.name: {sampler.config.model.name} cannot be exported to ONNX ({reason}); export .pt2 instead"


def _why_no_program(error: Exception, sampler: Sampler) -> str:
    config = sampler.config
    reason = describe(error, config.run.imports)
    if "specialized it to be a constant" in reason:
        reason = "its sample function has a fixed batch size; take it from the input, as in x.view(len(z), -1)"
    return f"model.name: {config.model.name} cannot be exported as a program ({reason}); export .safetensors instead"


def _example_inputs(sampler: Sampler) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Return inputs of a program for two images, and the names of those that belong to the condition."""
    given = sampler.game.condition.exported(_example(sampler))
    z = () if sampler.game.from_z is None else (sampler.z(0, 2, seed=0),)
    return (*z, *given.values()), tuple(given)


def _example(sampler: Sampler) -> Given:
    """Return a condition of two images with the shapes of the run's: of blank fields."""
    condition, data, fields = sampler.game.condition, sampler.config.data, sampler.config.data.fields
    dtype = next(next(iter(sampler.game.networks.values())).parameters()).dtype
    blank = {name: torch.zeros(2, dtype=torch.int64) for name in condition.fields if fields[name].kind == "label"}
    for name in condition.fields:
        if fields[name].kind in ("image", "point"):
            channels, size = data.shape(name)
            blank[name] = torch.zeros(2, channels, size, size, dtype=dtype)
        if fields[name].kind == "embedding":
            blank[name] = torch.ones(2, 1, sampler.config.objective.text.size, dtype=dtype)
    return condition.of(blank, KeyedNoise(0, 0, 0, 0, torch.device("cpu"), dtype))


def _sampled_networks(sampler: Sampler) -> list[str]:
    """Return the names of the networks that a sample asks for, and of the averaged ones."""
    game, given = sampler.game, _example(sampler)
    noted, dtype = _Noted(game.networks), next(next(iter(game.networks.values())).parameters()).dtype
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        game.sample(noted, 2, KeyedNoise(0, 0, 0, 0, torch.device("cpu"), dtype), given)
    return [name for name in game.networks if name in {*noted.asked, *game.averaged}]


class _Noted(dict[str, nn.Module]):
    """Networks by name, which note who is asked for."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__(networks)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> nn.Module:
        self.asked.add(name)
        return super().__getitem__(name)


class _Program(nn.Module):
    """Draws images. It has the networks that a draw from `inputs` uses, and no discriminator."""

    def __init__(self, sampler: Sampler, inputs: tuple[Tensor, ...], names: tuple[str, ...]) -> None:
        super().__init__()
        # torch.export warns about channels_last weights. Images of weights with gradients would have one, too.
        networks = nn.ModuleDict(sampler.game.networks).to(memory_format=torch.contiguous_format).requires_grad_(False)
        self._game, self._names = sampler.game, names
        dtype = next(networks.parameters()).dtype
        self._noise = KeyedNoise(0, 0, 0, 0, torch.device("cpu"), dtype, source=_Unkeyed(dtype))
        noted = _Noted(dict(networks.items()))
        with torch.random.fork_rng(devices=[]):  # Dropout draws from torch's global stream.
            self._draw(noted, inputs)
        self.networks = nn.ModuleDict({name: networks[name] for name in networks if name in noted.asked})

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._draw(dict(self.networks.items()), inputs)

    def _draw(self, networks: dict[str, nn.Module], inputs: tuple[Tensor, ...]) -> Tensor:
        exported = dict(zip(reversed(self._names), reversed(inputs), strict=False))
        given = self._game.condition.completed(exported)
        noise = replace(self._noise, device=inputs[0].device)
        if self._game.from_z is not None:
            return self._game.from_z(networks, inputs[0], noise, given)
        return self._game.sample(networks, inputs[0].shape[0], noise, given)


@dataclass(frozen=True)
class _Unkeyed:
    """Source of noise that a program can contain: it draws from torch's global stream."""

    dtype: torch.dtype

    def take(self, noise: KeyedNoise, request: NoiseRequest) -> Tensor:
        """Return the numbers of a request."""
        function = torch.randn if request.kind == "normal" else torch.rand
        return function(request.size, dtype=self.dtype, device=noise.device)
