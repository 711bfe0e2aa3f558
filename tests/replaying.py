"""Records the operations of a round and runs them again, as a CUDA graph does.

A graph repeats its operations on the same memory with the same Python numbers. So does `Recording.replay`, on a CPU: a
round that can be replayed to the bit can be captured.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganrun.training.host_reads import FRESH, READS


class Recording(TorchDispatchMode):
    """Operations of what runs inside, in order, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self._all: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        # Views, and results that are the memory of an argument, are written by the operation itself.
        if not operation.is_view:
            self._all.append((operation, args, kwargs or {}, tree_leaves(result)))
        return result

    @property
    def names(self) -> list[str]:
        """Names of the operations that are not views."""
        return [operation.name() for operation, *_ in self._all]

    @property
    def reads(self) -> list[str]:
        """Names of operations that read back to the host."""
        return [name for name in self.names if name.partition(".")[0] in READS]

    @property
    def fresh(self) -> list[str]:
        """Names of operations by which tensors are made of Python numbers, which a GPU copies from the host."""
        return [name for name in self.names if name.partition(".")[0] in FRESH]

    def replay(self) -> None:
        """Run the operations again, each on the same memory."""
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for operation, args, kwargs, before in self._all:
                for old, new in zip(before, tree_leaves(operation(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        assert old.shape == new.shape, operation
                        old.copy_(new)
