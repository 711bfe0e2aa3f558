"""Tensors of a checkpoint's files: parsed, and compared with those of the networks that they are for."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ganrun.errors import RunError, escaped

SHOWN = 3
"""Number of tensors that a message names."""


def parse_tensors(data: bytes, file: str) -> dict[str, Tensor]:
    """Parse a safetensors file.

    Args:
        data: content of the file.
        file: its name, for the message.

    Raises:
        RunError: the file is corrupt.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = escaped(str(error).removeprefix("Error while deserializing: "))
        raise RunError(f"{file} is corrupt: it is no whole safetensors file ({reason})") from error
    return tensors


def differences(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> list[str]:
    """Return in words which tensors of a file are not those of a network; empty if the file fits.

    Args:
        theirs: tensors of the file.
        mine: state dict of the network.
    """
    found = []
    for name, tensor in mine.items():
        if name not in theirs:
            found.append(f"{name} is missing")
        elif theirs[name].shape != tensor.shape:
            found.append(f"{name} is {list(theirs[name].shape)}, not {list(tensor.shape)}")
    return found + [f"{escaped(name)} is unknown" for name in theirs.keys() - mine.keys()]


def first_of(several: list[str]) -> str:
    """Return the first SHOWN items as text, with the number of the others."""
    more = f", and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    return ", ".join(several[:SHOWN]) + more
