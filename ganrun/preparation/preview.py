"""Preview of a data set: 64 samples in one PNG."""

import io
import random

from PIL import Image

from ganrun.data.index import Index
from ganrun.data.shard import read_samples
from ganrun.preparation.convert_image import EXTENSIONS
from ganrun.storage import Storage

PREVIEW_NAME = "preview.png"
_COLUMNS = 8
_LARGEST_TILE = 128
_GAP = 2


def preview(place: Storage, index: Index) -> bytes:
    """Return a PNG of 8x8 random samples (always the same ones) from up to eight shards."""
    lot = random.Random(0)
    shards = lot.sample(index.shards, min(_COLUMNS, len(index.shards)))
    pool: list[bytes] = []
    for shard in shards:
        samples = read_samples(place.read(shard.name), shard.name)
        drawn = lot.sample(samples, min(len(samples), -(-(_COLUMNS**2) // len(shards))))
        pool += [bytes(members[kind]) for _, members in drawn for kind in EXTENSIONS if kind in members]
    return _sheet(pool[: _COLUMNS**2], index)


def _sheet(files: list[bytes], index: Index) -> bytes:
    tile = min(index.image_size, _LARGEST_TILE)
    step, rows = tile + _GAP, -(-len(files) // _COLUMNS)
    mode = "L" if index.channels == 1 else "RGB"
    sheet = Image.new(mode, (_COLUMNS * step + _GAP, rows * step + _GAP), "white")
    for number, file in enumerate(files):
        row, column = divmod(number, _COLUMNS)
        image = Image.open(io.BytesIO(file)).convert(mode).resize((tile, tile))
        sheet.paste(image, (_GAP + column * step, _GAP + row * step))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
