"""One picture of any kind -> square uint8 pixels of the data set's size and channels, and its file.

What is done to every picture, so that two data sets made by ganrun are alike: turned upright by its EXIF
orientation; transparency laid onto white; the first frame of an animation; 16 bits scaled to 8; palettes
and CMYK to RGB; RGB to grey by ITU-R 601. Colour profiles are ignored.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ganrun.errors import UserError

Pixels = NDArray[np.uint8]
Stored = Path | bytes | memoryview | Pixels
"""A picture before conversion: an encoded file, its bytes, or uint8 pixels [H, W] or [H, W, 3]."""

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "webp": ("WEBP", {"lossless": True}),
}
"""Member extension -> Pillow's format and how it is written; png and webp lose nothing."""
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
"""Members of a sample that are its picture."""

_EXTENSION_OF = {name: extension for extension, (name, _) in FORMATS.items()}
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112


class UnreadableError(ValueError):
    """The picture cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Rule:
    """How all pictures of a data set are made equal.

    Without `resize` a picture of another size is refused, without `recolour` one of other channels;
    without `format` a picture that needs no change keeps its file, any other becomes png.
    """

    size: int
    channels: int
    resize: bool = False
    recolour: bool = False
    filter: str = "lanczos"
    format: str | None = None


@dataclass(frozen=True)
class Picture:
    """A converted picture: `pixels` [size, size, channels] and the same as a file; whether that is the file it
    came in, and whether it was smaller than `size`."""

    pixels: Pixels
    extension: str
    data: bytes
    kept: bool = False
    enlarged: bool = False


def read_shape(stored: Stored) -> tuple[int, int, int]:
    """Width, height and channels (1 or 3) by the picture's header.

    Raises:
        UnreadableError: it has none.
    """
    with _open(stored) as image:
        return (*image.size, _channels(image.mode))


def convert(stored: Stored, rule: Rule) -> Picture:
    """The picture by the rule.

    Raises:
        UnreadableError: it cannot be decoded.
        UserError: its size or channels differ, and the rule does not change them.
    """
    with _open(stored) as image:
        kept = _decode(image, rule)
    short = min(image.size)
    _check(image, rule)
    image = _flatten(image, "L" if rule.channels == 1 else "RGB")
    if image.size != (rule.size, rule.size):
        image = _centre_square(image).resize((rule.size, rule.size), FILTERS[rule.filter])
    pixels = np.asarray(image).reshape(rule.size, rule.size, rule.channels)
    if kept and not isinstance(stored, np.ndarray):
        data = stored.read_bytes() if isinstance(stored, Path) else bytes(stored)
        return Picture(pixels, kept, data, kept=True)
    extension = rule.format or "png"
    return Picture(pixels, extension, _encode(image, extension), enlarged=short < rule.size)


def _open(stored: Stored) -> Image.Image:
    """The picture with its header read; its pixels follow later."""
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(stored if isinstance(stored, Path) else io.BytesIO(stored))
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise UnreadableError(_reason(stored, error)) from error


def _decode(image: Image.Image, rule: Rule) -> str | None:
    """Decodes the first frame and turns it upright; returns the extension under which the picture's file may
    go into a shard as it is, None if it must be made anew."""
    try:
        kept = _kept_extension(image, rule)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # even reading the orientation decodes some files
        raise UnreadableError(f"damaged: {error}") from error
    return kept


def _reason(stored: Stored, error: Exception) -> str:
    if (stored.stat().st_size if isinstance(stored, Path) and stored.exists() else 1) == 0 or stored == b"":
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow knows"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _kept_extension(image: Image.Image, rule: Rule) -> str | None:
    extension = _EXTENSION_OF.get(image.format or "")
    as_it_is = (
        image.size == (rule.size, rule.size)
        and image.mode == ("L" if rule.channels == 1 else "RGB")
        and isinstance(image, ImageFile.ImageFile)
        and not any(";16" in str(tile) for tile in image.tile)  # what Pillow reads as RGB of 16 bits
        and not image.has_transparency_data
        and not getattr(image, "is_animated", False)
        and image.getexif().get(_ORIENTATION, 1) == 1
    )
    return extension if as_it_is and rule.format in (None, extension) else None


def _check(image: Image.Image, rule: Rule) -> None:
    width, height = image.size
    if not rule.resize and (width, height) != (rule.size, rule.size):
        raise UserError(
            f"{width}x{height} pixels where the others have {rule.size}x{rule.size}; --size N makes them equal"
        )
    if not rule.recolour and _channels(image.mode) != rule.channels:
        kinds = {1: "grey", 3: "in colour"}
        raise UserError(
            f"{kinds[4 - rule.channels]} where the others are {kinds[rule.channels]}; "
            "--channels 1 or 3 makes them equal"
        )


def _centre_square(image: Image.Image) -> Image.Image:
    """Cut out first, since a filter that is given a box still reads across its edge."""
    short = min(image.size)
    left, top = ((side - short) // 2 for side in image.size)
    return image.crop((left, top, left + short, top + short))


def _channels(mode: str) -> int:
    return 1 if mode in _GREY_MODES else 3


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any mode to "L" or "RGB"."""
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise UnreadableError("more than 16 bits a pixel")
        return Image.fromarray((levels / 257).round().astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise UnreadableError("pixels are floats, whose range is not known")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        raise UnreadableError(f"no way from mode {image.mode} to {mode}") from error


def _encode(image: Image.Image, extension: str) -> bytes:
    name, options = FORMATS[extension]
    buffer = io.BytesIO()
    # A fresh image carries no metadata: what Pillow read along (EXIF, profiles, comments) stays behind.
    Image.fromarray(np.asarray(image)).save(buffer, name, **options)
    return buffer.getvalue()
