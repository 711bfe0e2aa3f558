"""Which frames of a video are a clip, and the options of `ganrun prepare` that say so."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

CLIP_OPTIONS = ("past", "horizons", "stride", "step", "part")


@dataclass(frozen=True)
class ClipRule:
    """Clips of a video.

    Attributes:
        past: frames of a clip before `image`: fields past_1, the last one before it, to past_N.
        horizons: frames from `image` on: further ones are fields next_2 to next_N.
        stride: frames of the video from one frame of a clip to the next.
        step: frames of the video from the start of one clip to that of the next; None: as many as a clip spans, so
            that no frame is in two clips.
        part: begin and end of the part of each video that clips are taken of, as shares of its frames.
    """

    past: int = 4
    horizons: int = 3
    stride: int = 1
    step: int | None = None
    part: tuple[float, float] = (0.0, 1.0)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the frames of a clip, in their order."""
        before = (f"past_{back}" for back in range(self.past, 0, -1))
        return (*before, "image", *(f"next_{horizon}" for horizon in range(2, self.horizons + 1)))

    @property
    def span(self) -> int:
        """Frames of the video from the first of a clip to its last."""
        return (self.past + self.horizons - 1) * self.stride + 1

    def starts(self, frames: int, breaks: Sequence[int]) -> Iterator[int]:
        """Yield where the clips of a video begin.

        Args:
            frames: number of frames of the video.
            breaks: numbers of the frames before which there is a cut or a gap, ascending; no clip goes over one.
        """
        first, end = (round(share * frames) for share in self.part)
        edges = [first, *(number for number in breaks if first < number < end), end]
        for begin, after in pairwise(edges):
            yield from range(begin, after - self.span + 1, self.step or self.span)

    def __str__(self) -> str:
        """Return it in words."""
        part = "{:g}:{:g}".format(*self.part)
        return (
            f"clips of {self.past} past frames and {self.horizons} horizons, stride {self.stride}, step "
            f"{self.step or self.span}, part {part}"
        )


def add_clip_options(add: Callable[..., Any]) -> None:
    """Add the options of `video:`."""
    add("--past", type=_count, metavar="N", help="past frames of a clip: fields past_1 to past_N (default: 4)")
    add("--horizons", type=_count, metavar="N", help="frames to predict: image, and next_2 to next_N (default: 3)")
    add("--stride", type=_count, metavar="N", help="take every Nth frame of a video (default: 1)")
    add(
        "--step",
        type=_count,
        metavar="N",
        help="a clip begins every N frames of a video (default: as many as it spans, so that clips share no frame)",
    )
    add("--part", type=_part, metavar="A:B", help="part of each video, such as 0:0.8 or 0.8:1 (default: 0:1)")


def rule_of(options: argparse.Namespace) -> ClipRule:
    """Return the rule that options state."""
    given = {name: getattr(options, name) for name in CLIP_OPTIONS if getattr(options, name) is not None}
    return ClipRule(**given)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 1 to 1000")
    return int(text)


def _part(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d*\.?\d+):(\d*\.?\d+)", text)
    if not found or not 0 <= float(found[1]) < float(found[2]) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give two shares from 0 to 1, the smaller first, such as 0:0.8")
    return float(found[1]), float(found[2])
