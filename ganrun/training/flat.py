"""Tensors in one block of memory, so that one operation works on all of them."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Bytes: each tensor begins at a multiple, as vectorised kernels want. The gaps stay zero."""


class FlatTensors:
    """Tensors of one dtype and device in a block. They become views of it, in their shape and memory format.

    Args:
        tensors: by name; their memory is replaced by a part of the block.

    Attributes:
        block: [N], all of them.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.names = list(tensors)
        found = list(tensors.values())
        self._sizes, self._strides = [each.shape for each in found], [_dense_stride(each) for each in found]
        self._starts, step = [0], ALIGNMENT // found[0].element_size()
        for tensor in found:
            self._starts.append(self._starts[-1] + -(-tensor.numel() // step) * step)
        self.block = torch.zeros(self._starts[-1], dtype=found[0].dtype, device=found[0].device)
        for tensor, view in zip(found, self.views(self.block, len(found)), strict=True):
            view.copy_(tensor.detach())
            tensor.data = view

    def first(self, count: int) -> Tensor:
        """Return the part of the block that holds the first `count` tensors."""
        return self.block[: self._starts[count]]

    def views(self, block: Tensor, count: int) -> list[Tensor]:
        """Return views of a block as long as `first(count)`: one for each of these tensors, in its shape and format."""
        start = block.storage_offset()
        places = list(zip(self._sizes, self._strides, self._starts, strict=False))[:count]
        return [block.as_strided(size, stride, start + offset) for size, stride, offset in places]


class FlatNetwork:
    """State of a network in blocks of memory, one for each dtype: parameters first, then buffers.

    Args:
        network: the network.
        names: names of the tensors in each block; None: all that are not `taken`.
        taken: parameters and buffers, by id, that belong to another network and stay there.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[Sequence[str]] | None = None, taken: Collection[int] = ()
    ) -> None:
        parameters = dict(network.named_parameters())
        named = {**parameters, **dict(network.named_buffers())}
        if names is None:
            groups: dict[tuple[torch.dtype, torch.device], list[str]] = {}
            for name, tensor in named.items():
                if id(tensor) not in taken:
                    groups.setdefault((tensor.dtype, tensor.device), []).append(name)
            names = list(groups.values())
        self.names = names
        self.flats = [FlatTensors({name: named[name] for name in group}) for group in names]
        self.parameters = [sum(name in parameters for name in flat.names) for flat in self.flats]
        """Number of parameters in each block."""
        flat = {name for group in names for name in group}
        self.blocks = [each.block for each in self.flats] + [named[name].detach() for name in named if name not in flat]
        """All tensors of the network: the blocks, and those that are in none."""


def flatten(networks: Mapping[str, nn.Module]) -> dict[str, FlatNetwork]:
    """Move the state of each network into blocks. A tensor that networks share stays with the first."""
    found: dict[str, FlatNetwork] = {}
    taken: set[int] = set()
    for name, network in networks.items():
        found[name] = FlatNetwork(network, taken=taken)
        taken |= {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    return found


def _dense_stride(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of a tensor without gaps; those of a contiguous one if it has some."""
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.stride() if span == tensor.numel() else tensor.contiguous().stride()
