"""Pictures of random samples of a data set, with all their pictures side by side."""

import io
import random
import re

from PIL import Image

from ganrun.data.index import Index
from ganrun.data.shard import Sample, read_samples
from ganrun.preparation.convert_image import EXTENSIONS
from ganrun.preparation.sources import IMAGE
from ganrun.storage import Storage

PREVIEW_NAME = "preview.png"
_COLUMNS = 8
_LARGEST_TILE = 128
_GAP = 2


def preview(place: Storage, index: Index) -> bytes:
    """Return a PNG of 8x8 random samples (always the same ones) from up to eight shards."""
    lot = random.Random(0)
    shards = lot.sample(index.shards, min(_COLUMNS, len(index.shards)))
    pool: list[Sample] = []
    for shard in shards:
        samples = read_samples(place.read(shard.name), shard.name)
        drawn = lot.sample(samples, min(len(samples), -(-(_COLUMNS**2) // len(shards))))
        pool += [members for _, members in drawn]
    return _sheet(pool[: _COLUMNS**2], index)


def pictures_of(members: Sample, index: Index) -> list[bytes]:
    """Return the encoded pictures of a sample: `image`, then the further ones of the index; of a clip by their time."""
    names = sorted([IMAGE, *index.pictures], key=_time)
    kinds = [f"{'' if name == IMAGE else f'{name}.'}{ending}" for name in names for ending in EXTENSIONS]
    return [bytes(members[kind]) for kind in kinds if kind in members]


def _time(name: str) -> int:
    """Return when a frame of a clip is shown; other pictures are shown after `image`."""
    found = re.fullmatch(r"(past|next)_(\d+)", name)
    if not found:
        return int(name != IMAGE)
    return -int(found[2]) if found[1] == "past" else int(found[2])


def strip(files: list[bytes], tile: int, mode: str) -> Image.Image:
    """Return pictures side by side, each scaled to `tile` pixels a side."""
    row = Image.new(mode, (len(files) * tile, tile), "white")
    for number, file in enumerate(files):
        row.paste(Image.open(io.BytesIO(file)).convert(mode).resize((tile, tile)), (number * tile, 0))
    return row


def mode_of(index: Index) -> str:
    """Return Pillow's mode for all pictures of a data set."""
    colours = {index.channels, *(shape.channels for shape in index.pictures.values())}
    return "L" if colours == {1} else "RGB"


def _sheet(samples: list[Sample], index: Index) -> bytes:
    tile, rows = min(index.image_size, _LARGEST_TILE), -(-len(samples) // _COLUMNS)
    across, down, mode = tile * (1 + len(index.pictures)) + _GAP, tile + _GAP, mode_of(index)
    sheet = Image.new(mode, (_COLUMNS * across + _GAP, rows * down + _GAP), "white")
    for number, members in enumerate(samples):
        row, column = divmod(number, _COLUMNS)
        sheet.paste(strip(pictures_of(members, index), tile, mode), (_GAP + column * across, _GAP + row * down))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
