"""A picture of random samples of a data set, each with all its pictures and its caption."""

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ganrun.data.decode import Located
from ganrun.data.index import DataSet
from ganrun.data.samples import Samples
from ganrun.errors import UserError, escaped
from ganrun.preparation.preview import mode_of, pictures_of, strip

SHOWN = 24
_TILES = 8
"""Pictures in a row of the sheet."""
_SMALLEST_TILE, _LARGEST_TILE = 96, 256
_CAPTION, _GAP = 18, 8
"""Height of a caption and distance between samples, in pixels."""


def show(data: DataSet, file: Path, seed: int) -> None:
    """Write a PNG of random samples: their pictures side by side, above the class name and the text.

    Args:
        data: the data set.
        file: the PNG.
        seed: seed of the draw.

    Raises:
        UserError: the data set has no pictures, a shard is corrupt, or the file cannot be written.
    """
    if data.index.image_size == 1:
        raise UserError("--show: the samples are points, not pictures; look at the preview.png beside the index")
    samples = Samples(data)
    numbers = sorted(random.Random(seed).sample(range(len(samples)), min(SHOWN, len(samples))))
    sheet = _sheet([samples[number] for number in numbers], data)
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise UserError(f"--show: cannot write {file}: {error.strerror or error}; name another file") from error


def _sheet(samples: list[Located], data: DataSet) -> Image.Image:
    size, pictures = data.index.image_size, 1 + len(data.index.pictures)
    tile = min(size * -(-_SMALLEST_TILE // size), _LARGEST_TILE)
    columns = max(1, min(_TILES // pictures, len(samples)))
    across, down = tile * pictures + _GAP, tile + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, -(-len(samples) // columns) * down + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (_, _, members) in enumerate(samples):
        left, top = (
            _GAP + place * step for place, step in zip(divmod(number, columns)[::-1], (across, down), strict=True)
        )
        sheet.paste(strip(pictures_of(members, data.index), tile, mode_of(data.index)), (left, top))
        caption = _caption(members, data)
        while pen.textlength(caption, font) > tile * pictures:
            caption = caption[:-2].rstrip("…") + "…"
        pen.text((left, top + tile + 2), caption, "black", font)
    return sheet


def _caption(members: dict[str, memoryview], data: DataSet) -> str:
    """Return the class name and the text of a sample in one line."""
    label = bytes(members.get("cls", b"")).decode(errors="replace").strip()
    classes = data.index.classes
    named = classes[int(label)] if label.isdecimal() and int(label) < len(classes) else label
    text = bytes(members.get("txt", b""))[:500].decode(errors="replace")
    return escaped(": ".join(part for part in (named, " ".join(text.split())) if part))
