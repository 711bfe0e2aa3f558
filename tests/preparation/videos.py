"""Videos whose frames can be told apart: each is of one shade, lossless."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 48, 32


def frame_of(shade: int) -> np.ndarray:
    """A grey frame with a dark band on the left, which the centre square leaves out."""
    pixels = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
    pixels[:, :8] = 0
    return pixels


def video(path: Path, shades: Sequence[int], times: Sequence[int] | None = None) -> Path:
    """Write a lossless video of frames of these shades, shown at `times` (in 1/25 s; default: one after the other)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        stream.time_base = Fraction(1, 25)
        for number, shade in enumerate(shades):
            frame = av.VideoFrame.from_ndarray(frame_of(shade), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
