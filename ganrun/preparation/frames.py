"""Frames of a clip in their order: of a video file, of an animated picture, or of a folder of pictures."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from ganrun.errors import UserError
from ganrun.preparation.convert_image import Pixels, UnreadableError, decode, readable_endings, readable_formats

VIDEO_ENDINGS = frozenset(
    (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".mts", ".y4m")
)
"""Endings of files that are videos, in a folder; a file that is named may have any."""
ANIMATED = ".gif"
"""Ending of pictures that are clips of their own in a folder."""


class Frame(NamedTuple):
    """A frame, upright: pixels uint8 [H, W] or [H, W, 3], and when it is shown, in seconds, if that is known."""

    pixels: Pixels
    seconds: float | None


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames at a path.

    Args:
        path: a folder, whose pictures are the frames in the order of their names, `2` before `10`; a picture such as a
            GIF; or a video.

    Raises:
        UnreadableError: it, or one of its frames, cannot be decoded.
        UserError: the decoder of videos is not installed.
    """
    if path.is_dir():
        for picture in sorted(path.iterdir(), key=natural_order):
            ending = picture.suffix.lower()
            if ending in readable_endings() and ending != ANIMATED and not picture.name.startswith("."):
                yield Frame(_decoded(picture), None)
    elif path.suffix.lower() in readable_endings():
        yield from _of_picture(path)
    else:
        yield from _of_video(path)


def natural_order(path: Path) -> tuple[tuple[int, str], ...]:
    """Return a key by which names are sorted with their numbers as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts if part)


def video_decoder() -> ModuleType:
    """Return PyAV.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("av")
    except ImportError as error:
        raise UserError("video: the decoder PyAV is not installed; run: pip install 'ganrun[video]'") from error


def _decoded(picture: Path) -> Pixels:
    try:
        return np.asarray(decode(picture))
    except UnreadableError as error:
        raise UnreadableError(f"its frame {picture.name}: {error}") from error


def _of_picture(path: Path) -> Iterator[Frame]:
    seconds = 0.0
    try:
        with Image.open(path, formats=readable_formats()) as image:
            for frame in ImageSequence.Iterator(image):
                grey = frame.mode in ("1", "L")
                yield Frame(np.asarray(decode(np.asarray(frame.convert("L" if grey else "RGBA")))), seconds)
                seconds += frame.info.get("duration", 0) / 1000
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on corrupt files.
        raise UnreadableError(f"cannot be decoded: {error}") from error


def _of_video(path: Path) -> Iterator[Frame]:
    av = video_decoder()
    try:
        # A playlist must not lead to other machines.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise UnreadableError("has no pictures, only sound or text")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                grey = frame.format.name.startswith("gray")
                pixels = frame.to_ndarray(format="gray" if grey else "rgb24")
                yield Frame(np.rot90(pixels, frame.rotation // 90), frame.time)
    except av.error.FFmpegError as error:
        raise UnreadableError(f"cannot be decoded as a video: {error.strerror or error}") from error
