"""Finds operations that read a number back to the host, which a captured round cannot have."""

import traceback
from collections.abc import Iterator
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select", "aten::equal")
"""Operations whose result the host waits for."""


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the first such operation of what runs inside.

    Attributes:
        first: the operation and its place in Python, such as `nonzero at mine.py:12`; None if there is none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.first: str | None = None

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note its place if it reads back."""
        if self.first is None and operation.name().partition(".")[0] in READS:
            frames = [frame for frame in traceback.extract_stack()[:-1] if "/torch/" not in frame.filename]
            self.first = f"{operation.name().removeprefix('aten::')} at {frames[-1].filename}:{frames[-1].lineno}"
        return operation(*args, **(kwargs or {}))


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
