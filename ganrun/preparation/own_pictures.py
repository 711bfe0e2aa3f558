"""Pictures, clips and sentences that a user gives to a trained run: one file, or those below a folder."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganrun.data.captions import captions_of
from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import (
    Pixels,
    Rule,
    Stored,
    UnreadableError,
    centre_square,
    convert,
    decode,
    upright,
)
from ganrun.preparation.fields import read_text
from ganrun.preparation.find_images import find_images
from ganrun.preparation.frames import read_frames
from ganrun.storage import expand_user


def find_own(path: str, option: str) -> tuple[dict[str, Path], list[str]]:
    """Find the pictures at a path.

    Args:
        path: a file, or a folder with pictures, also in its sub-folders.
        option: option that gave the path, for messages.

    Returns:
        Files by name: their paths below the folder without ending; and a line for each file that is left out.

    Raises:
        UserError: no such file or folder, no picture in it, or two of one name.
    """
    place = Path(expand_user(path))
    if place.is_file():
        return {place.stem: place}, []
    if not place.is_dir():
        raise UserError(f"{option} {path}: no such file or folder; give a picture, or a folder with pictures")
    found = find_images(str(place))
    named: dict[str, Path] = {}
    left_out = [f"{place}/{name}: {why}" for name, why in found.unread.items()]
    left_out += [f"{place}/{name}: not a picture" for name in found.others]
    for picture in found.images:
        name = Path(picture).with_suffix("").as_posix()
        if name in named:
            raise UserError(f"{option} {path}: {named[name].name} and {picture} have one name; rename one of them")
        named[name] = place / picture
    if not named:
        raise UserError(f"{option} {path}: no picture in this folder; {left_out[0] if left_out else 'it is empty'}")
    return named, [escaped(line) for line in left_out]


def read_own(path: Path, option: str) -> Pixels:
    """Return a picture as people see it, uint8 [H, W, C], C = 1 or 3: turned by its EXIF orientation, on white.

    Raises:
        UserError: it cannot be read as a picture.
    """
    try:
        return np.atleast_3d(np.asarray(decode(path)))
    except UnreadableError as error:
        raise UserError(f"{option} {escaped(str(path))}: {error}; give a picture, such as a .png or .jpg") from error


def read_drawing(stored: Stored, where: str, size: int, channels: int) -> tuple[Pixels, NDArray[np.float32]]:
    """Return the centre square of a picture or of strokes, and how much of each pixel is drawn.

    Args:
        stored: the encoded file, or its path. What is transparent in it is not drawn; the rest is.
        where: where it comes from, for messages.
        size, channels: shape of the result.

    Returns:
        Colours, uint8 [size, size, channels], and shares [size, size] in [0, 1].

    Raises:
        UserError: it cannot be read as a picture, or all of it is transparent.
    """
    try:
        image = upright(stored)
        if not image.has_transparency_data:
            pixels = convert(np.asarray(decode(stored)), Rule(size, channels, resize=True, recolour=True)).pixels
            return pixels, np.ones((size, size), np.float32)
        # Pillow weights colours by their opacity here: transparent pixels have none.
        whole = centre_square(image.convert("RGBA")).resize((size, size), Image.Resampling.BOX)
    except (UnreadableError, ValueError, OSError) as error:
        raise UserError(f"{where}: {error}; give a picture, such as a .png or .jpg") from error
    drawn = (np.asarray(whole.getchannel("A")) / 255).astype(np.float32)
    if not drawn.any():
        raise UserError(f"{where}: nothing is drawn: all of it is transparent")
    colours: Pixels = np.asarray(whole.convert("RGB").convert("L" if channels == 1 else "RGB"), np.uint8)
    return colours.reshape(size, size, channels), drawn


def read_clip(path: str, option: str, frames: int, size: int, channels: int) -> list[Pixels]:
    """Return the last frames of a video, a GIF or a folder of frames as `prepare` makes them: squares of the centre.

    Args:
        path: the video, GIF or folder.
        option: option that gave the path, for messages.
        frames: most frames to return.
        size, channels: shape of a returned frame, uint8 [size, size, channels].

    Raises:
        UserError: no such file or folder, it holds no frame, or one cannot be decoded.
    """
    place = Path(expand_user(path))
    if not place.exists():
        raise UserError(f"{option} {path}: no such file or folder; give a video, a GIF or a folder of frames")
    rule = Rule(size, channels, resize=True, recolour=True)
    try:
        last = deque((frame.pixels for frame in read_frames(place)), maxlen=frames)
        found = [convert(pixels, rule).pixels for pixels in last]
    except UnreadableError as error:
        raise UserError(f"{option} {escaped(path)}: {error}; give a video, a GIF or a folder of frames") from error
    if not found:
        raise UserError(f"{option} {escaped(path)}: no frame in it; give a video, a GIF or a folder of frames")
    return found


def read_sentences(path: str, option: str) -> list[str]:
    """Return the sentences of a file, one a line; empty lines are left out.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    found = captions_of(read_text(Path(expand_user(path)), f"{option} {path}", "a file of sentences"))
    if not found:
        raise UserError(f"{option} {path}: no sentence in it; write one a line")
    return found


def masks_by_name(path: str) -> Callable[[str], NDArray[np.bool_]]:
    """Return a function from the name of a picture to its mask of `--mask`: [H, W], True where it is drawn, not black.

    Args:
        path: a file, which is the mask of all pictures, or a folder with a mask under the name of each.

    Raises:
        UserError: no such file or folder; when it is called, there is no mask of that name, or it is no picture.
    """
    place = Path(expand_user(path))
    masks, _ = find_own(path, "--mask") if place.is_dir() else ({}, [])

    def mask_of(name: str) -> NDArray[np.bool_]:
        if masks and name not in masks:
            raise UserError(f"--mask {path}: no mask for {escaped(name)}; add one under this name")
        file = masks.get(name, place)
        return read_mask(file, f"--mask {escaped(str(file))}")

    return mask_of


def read_mask(stored: Stored, where: str) -> NDArray[np.bool_]:
    """Return the hole of a mask, [H, W]: what is not black. What is fully transparent is kept, if something is drawn
    beside it in another colour than black; else it is the hole, as one that was erased.

    Args:
        stored: the encoded file, or its path.
        where: where it comes from, for messages.

    Raises:
        UserError: it cannot be read as a picture.
    """
    try:
        drawn = np.atleast_3d(np.asarray(decode(stored))).max(axis=2) > 0
        image = upright(stored)
    except UnreadableError as error:
        raise UserError(f"{where}: {error}; give a picture, such as a .png or .jpg") from error
    if not image.has_transparency_data:
        return drawn  # type: ignore[no-any-return]
    opaque = np.asarray(image.convert("RGBA").getchannel("A")) > 0
    hole: NDArray[np.bool_] = drawn & opaque
    return hole if hole.any() else ~opaque
