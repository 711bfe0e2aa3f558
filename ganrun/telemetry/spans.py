"""Spans of a trace: what a round consists of, for who profiles it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function

_NOTHING = nullcontext()


def span(name: str) -> AbstractContextManager[object]:
    """A span of that name while a profiler runs; else nothing, since even an idle record_function costs some
    microseconds."""
    return record_function(name) if torch.autograd._profiler_enabled() else _NOTHING  # type: ignore[attr-defined]
