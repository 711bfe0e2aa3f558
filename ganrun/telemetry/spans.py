"""Spans that name the phases of a round in a profiler's trace."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function

_NOTHING = nullcontext()


def span(name: str) -> AbstractContextManager[object]:
    """Return a span while a profiler runs, else a null context: even an idle record_function costs microseconds."""
    return record_function(name) if torch.autograd._profiler_enabled() else _NOTHING  # type: ignore[attr-defined]
