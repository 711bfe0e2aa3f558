"""Finds what waits for the host in a round, and what copies from it: a captured round can have neither."""

import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select", "aten::equal")
"""Operations whose result the host waits for."""
FRESH = ("aten::lift_fresh", "aten::lift_fresh_copy")
"""Operations by which a tensor is made of Python numbers."""


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the first operation of what runs inside that reads from the device, or copies to it.

    Attributes:
        first: the operation, its place in Python and what to do instead, such as `nonzero at mine.py:12 reads a ...`;
            None if there is none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first: str | None = None

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note its place if it needs the host."""
        result = operation(*args, **(kwargs or {}))
        if self.first is None:
            name = operation.name().partition(".")[0]
            if name in READS:
                self._note(
                    operation,
                    "reads a number back to the host; compute it on the device, or take it from noise.scheduled",
                )
            elif result_is_copied(name, args, result):
                self._note(
                    operation,
                    "copies numbers from the host; make them once, as a buffer of a module, or take "
                    "them from noise.scheduled",
                )
        return result

    def _note(self, operation: Any, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack()[:-2] if "/torch/" not in frame.filename]
        place = f"{frames[-1].filename}:{frames[-1].lineno}"
        self.first = f"{operation.name().removeprefix('aten::')} at {place} {what}"


def result_is_copied(name: str, args: Any, result: Any) -> bool:
    """Return True if an operation leaves numbers of the host on a GPU. A scalar of the host is no copy."""
    if not isinstance(result, torch.Tensor) or result.device.type != "cuda":
        return False
    given = [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
    return name in FRESH or any(each.device.type == "cpu" and each.dim() > 0 for each in given)


class WatchedTexts(list[str]):
    """Texts of a batch that note whether they are read.

    Attributes:
        was_read: True once they were.
    """

    was_read = False

    def __iter__(self) -> Iterator[str]:
        self.was_read = True
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self.was_read = True
        return super().__getitem__(place)
