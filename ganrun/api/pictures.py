"""Pictures that a program gives to a run, and those that it gets."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.inference.predicting import Predictor
from ganrun.preparation.convert_image import Rule, UnreadableError, convert, decode
from ganrun.preparation.own_pictures import read_clip, read_mask, read_own
from ganrun.storage import expand_user

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""A picture of one's own: a file, a Pillow image, or uint8 [H, W, C]."""


def to_pillow(images: Tensor) -> list[Image.Image]:
    """Return images [B, C, H, W] in [-1, 1], C = 1 or 3, as Pillow images.

    Raises:
        UserError: they are no pictures.
    """
    if images.shape[1] not in (1, 3) or images.shape[-1] == 1:
        raise UserError(f"pictures: {list(images.shape[1:])} is no picture; leave it out for a tensor")
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each.squeeze()) for each in pixels]


def png_of(picture: Picture) -> bytes:
    """Return a picture of any mode as a file, which is read as people see it: upright, transparency on white."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(pixels_of(picture, "picture").squeeze())
    buffer, upright = io.BytesIO(), ImageOps.exif_transpose(picture)
    if upright.mode in ("I", "F"):
        upright.save(buffer, "TIFF")  # PNG has no such pixels.
    else:
        kept = upright.mode in ("1", "L", "LA", "P", "RGB", "RGBA") or upright.mode.startswith("I;16")
        (upright if kept else upright.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def hole_of(mask: Picture) -> NDArray[np.bool_]:
    """Return the hole of a mask, bool [H, W], see `read_mask`.

    Raises:
        UserError: it cannot be read as a picture.
    """
    if isinstance(mask, str | Path):
        return read_mask(Path(expand_user(str(mask))), f"mask {mask}")
    return read_mask(png_of(mask), "mask")


def frames_of(condition: "Picture | Sequence[Picture]", predictor: Predictor) -> list[NDArray[np.uint8]]:
    """Return the last frames of a clip as `ganrun sample --frames` reads them, uint8 [size, size, C] each.

    Raises:
        UserError: it is no clip, or a frame cannot be read.
    """
    if isinstance(condition, str | Path):
        return read_clip(str(condition), "condition", predictor.frames, predictor.size, predictor.channels)
    if not isinstance(condition, Sequence):
        raise UserError("condition: one picture, but this run continues clips; give its frames as a list, or a file")
    rule = Rule(predictor.size, predictor.channels, resize=True, recolour=True)
    pixels = (pixels_of(each) for each in condition)
    found = [convert(each.squeeze(2) if each.shape[2] == 1 else each, rule).pixels for each in pixels]
    return found[-predictor.frames :]


def pixels_of(picture: Picture, name: str = "condition") -> NDArray[np.uint8]:
    """Return a picture as uint8 [H, W, C], C = 1 or 3.

    Raises:
        UserError: it cannot be read as a picture. The message begins with `name`.
    """
    if isinstance(picture, str | Path):
        return read_own(Path(expand_user(str(picture))), name)
    if isinstance(picture, Image.Image):
        try:
            picture = np.asarray(decode(png_of(picture)))
        except UnreadableError as error:
            raise UserError(f"{name}: {error}; give another picture") from error
    found = np.atleast_3d(picture)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] not in (1, 3):
        raise UserError(f"{name}: {found.dtype} {list(found.shape)} is no picture; give uint8 [H, W, C], C = 1 or 3")
    return found
