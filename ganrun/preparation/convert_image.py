"""Converts one picture of any format to square uint8 pixels of the size and channels of the data set.

All pictures are treated alike: rotated by their EXIF orientation; transparency composited onto white; the first frame
of an animation; 16 bits scaled to 8; palettes and CMYK to RGB; RGB to grey by ITU-R 601. Colour profiles are ignored.
"""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ganrun.config.field_types import EXTENSIONS as FIELD_EXTENSIONS
from ganrun.errors import UserError

Pixels = NDArray[np.uint8]
Stored = Path | bytes | memoryview | Pixels
"""Picture before conversion: path of an encoded file, its bytes, or uint8 pixels [H, W] or [H, W, 3]."""

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
"""Pillow's format and options of saving by member extension; png and webp are lossless."""
EXTENSIONS = FIELD_EXTENSIONS["image"]
"""Extensions of the members that hold a sample's picture."""

_EXTENSION_OF = {name: extension for extension, (name, _) in FORMATS.items()}
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that swap width and height."""
_NOT_READ = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC")
"""Formats that Pillow lists, but reads only by starting Ghostscript (EPS), only on Windows, or not at all."""
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # It does not name the file; our own messages do.


class UnreadableError(ValueError):
    """The picture cannot be decoded. The message says why."""


@dataclass(frozen=True)
class Rule:
    """Conversion that all pictures of a data set get.

    Attributes:
        size: side of the square in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: crop and resize pictures of another size; False: refuse them.
        recolour: convert pictures with other channels; False: refuse them.
        filter: resize filter, a name in `FILTERS`.
        format: file format, a name in `FORMATS`; None: keep files that need no conversion, encode others as png.
        further: channels of further pictures of a sample by their field; those without an entry have `channels`.
    """

    size: int
    channels: int
    resize: bool = False
    recolour: bool = False
    filter: str = "lanczos"
    format: str | None = None
    further: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """Converted picture.

    Attributes:
        pixels: uint8 [size, size, channels].
        extension: extension of the encoded file.
        data: the encoded file.
        kept: True if `data` is the original file.
        enlarged: True if the original was smaller than `size`.
    """

    pixels: Pixels
    extension: str
    data: bytes
    kept: bool = False
    enlarged: bool = False


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that it reads itself."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


@functools.cache
def readable_endings() -> frozenset[str]:
    """Return the endings of these formats, such as .png."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable_formats())


def is_image(stored: Path | bytes) -> bool:
    """Return True if the content begins like one of these formats. Formats without such a mark do not count."""
    marked = tuple(name for name in readable_formats() if Image.OPEN[name][1])
    try:
        with _quiet(), Image.open(stored if isinstance(stored, Path) else io.BytesIO(stored), formats=marked):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except Exception:  # decoders raise nearly anything on corrupt files
        return False


def read_shape(stored: Stored) -> tuple[int, int, int]:
    """Return width, height and channels (1 or 3) from the header of a picture.

    Raises:
        UnreadableError: the header cannot be read.
    """
    with _open(stored) as image:
        return (*image.size, _channels(image.mode))


def read_upright_size(stored: Stored) -> tuple[int, int]:
    """Return width and height from the header of a picture, turned by its EXIF orientation.

    Raises:
        UnreadableError: the header cannot be read.
    """
    with _open(stored) as image:
        try:
            turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        except Exception as error:  # reading the orientation decodes some files
            raise UnreadableError(f"corrupt: {error}") from error
        return image.size[::-1] if turned else image.size


def decode(stored: Stored) -> Image.Image:
    """Return the first frame of a picture in mode "L" or "RGB", turned by its EXIF orientation.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    image = upright(stored)
    return _flatten(image, "L" if _channels(image.mode) == 1 else "RGB")


def upright(stored: Stored) -> Image.Image:
    """Return the first frame of a picture in its own mode, turned by its EXIF orientation, see `decode`."""
    with _open(stored) as image:
        _decode(image, None)
    return image


def convert(stored: Stored, rule: Rule) -> Picture:
    """Convert a picture by the rule.

    Raises:
        UnreadableError: the picture cannot be decoded.
        UserError: its size or channels differ and the rule does not convert them.
    """
    with _open(stored) as image:
        kept = _decode(image, rule)
    short = min(image.size)
    _check(image, rule)
    image = _flatten(image, "L" if rule.channels == 1 else "RGB")
    if image.size != (rule.size, rule.size):
        image = centre_square(image).resize((rule.size, rule.size), FILTERS[rule.filter])
    pixels = np.asarray(image).reshape(rule.size, rule.size, rule.channels)
    if kept and not isinstance(stored, np.ndarray):
        data = stored.read_bytes() if isinstance(stored, Path) else bytes(stored)
        return Picture(pixels, kept, data, kept=True)
    extension = rule.format or "png"
    return Picture(pixels, extension, _encode(image, extension), enlarged=short < rule.size)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn the warning of a decompression bomb into an error; drop the others, which do not name the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(stored: Stored) -> Image.Image:
    """Open a picture and read its header only."""
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    try:
        with _quiet():
            image = Image.open(stored if isinstance(stored, Path) else io.BytesIO(stored), formats=readable_formats())
            if not all(image.size):
                raise UnreadableError(f"{image.size[0]}x{image.size[1]} pixels")
            return image
    except Exception as error:  # decoders raise nearly anything on corrupt files
        raise UnreadableError(_reason(stored, error)) from error


def _decode(image: Image.Image, rule: Rule | None) -> str | None:
    """Decode the first frame and apply the EXIF orientation, in place.

    Returns:
        The extension of the original file if it can go into a shard unchanged; None if the picture must be encoded.
    """
    try:
        with _quiet():
            kept = _kept_extension(image, rule) if rule else None
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # even reading the orientation decodes some files
        raise UnreadableError(f"corrupt: {error}") from error
    return kept


def _reason(stored: Stored, error: Exception) -> str:
    if (stored.stat().st_size if isinstance(stored, Path) and stored.exists() else 1) == 0 or stored == b"":
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image format that Pillow can read"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _kept_extension(image: Image.Image, rule: Rule) -> str | None:
    extension = _EXTENSION_OF.get(image.format or "")
    as_it_is = (
        image.size == (rule.size, rule.size)
        and image.mode == ("L" if rule.channels == 1 else "RGB")
        and isinstance(image, ImageFile.ImageFile)
        and not any(";16" in str(tile) for tile in image.tile)  # 16-bit RGB, which Pillow opens as mode RGB
        and not image.has_transparency_data
        and not getattr(image, "is_animated", False)
        and image.getexif().get(_ORIENTATION, 1) == 1
    )
    return extension if as_it_is and rule.format in (None, extension) else None


def _check(image: Image.Image, rule: Rule) -> None:
    width, height = image.size
    if not rule.resize and (width, height) != (rule.size, rule.size):
        raise UserError(
            f"{width}x{height} pixels, the other images have {rule.size}x{rule.size}; resize all with --size N"
        )
    if not rule.recolour and _channels(image.mode) != rule.channels:
        kinds = {1: "grey", 3: "in colour"}
        raise UserError(
            f"{kinds[4 - rule.channels]}, the other images are {kinds[rule.channels]}; "
            "convert all with --channels 1 or --channels 3"
        )


def centre_square(image: Image.Image) -> Image.Image:
    """Crop the centre square. Not `resize(box=...)`: its filter reads pixels outside the box."""
    short = min(image.size)
    left, top = ((side - short) // 2 for side in image.size)
    return image.crop((left, top, left + short, top + short))


def _channels(mode: str) -> int:
    return 1 if mode in _GREY_MODES else 3


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert a picture of any mode to "L" or "RGB", transparency onto white."""
    if image.mode == "F":
        raise UnreadableError("floating-point pixels, whose range is unknown")
    try:
        if image.mode.startswith("I"):
            levels = np.asarray(image)
            if levels.min() < 0 or levels.max() > 65535:
                raise UnreadableError("more than 16 bits per pixel")
            return Image.fromarray((levels / 257).round().astype(np.uint8)).convert(mode)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return image if image.mode == mode else image.convert(mode)
    except UnreadableError:
        raise
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UnreadableError(f"cannot convert mode {image.mode} to {mode}: {error}") from error


def _encode(image: Image.Image, extension: str) -> bytes:
    name, options = FORMATS[extension]
    buffer = io.BytesIO()
    # A new image carries no metadata: Pillow would write EXIF, colour profiles and comments of the original.
    Image.fromarray(np.asarray(image)).save(buffer, name, **options)
    return buffer.getvalue()
