"""A part of a round as a CUDA graph."""

from typing import Any, Protocol

import torch


class Segment(Protocol):
    """A part of a round between two collectives, recorded inside the `with` block."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: Any) -> bool | None: ...

    def replay(self) -> None:
        """Run the recorded operations again."""

    def reset(self) -> None:
        """Free the memory."""


class CudaSegment:
    """A CUDA graph. Graphs of a run share their memory: nothing that one allocates is read outside of it."""

    def __init__(self, pool: Any, stream: torch.cuda.Stream) -> None:
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that decode, may use CUDA meanwhile.
        self._capture = torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local")

    def __enter__(self) -> None:
        self._capture.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._capture.__exit__(*error)  # type: ignore[no-untyped-call]

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()

    def reset(self) -> None:
        """Free the graph."""
        self._graph.reset()


class OnStream:
    """Runs a block on a stream, in order with what the current stream does before and after."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._context = torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        self._context.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().wait_stream(self._stream)
