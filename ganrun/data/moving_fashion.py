"""Moving Fashion-MNIST, `package:moving-fashion`: two garments that move and bounce, computed when a shard is read.

After Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681). Each of the 10,000 garments of the package is in one clip
alone, so whatever is held out of training shows garments that are never trained on. All numbers are whole and files are
stored without compression, so that every machine computes the bytes whose hashes are in moving-fashion/index.json.
tests/data/test_moving_fashion.py makes that index again.

A clip is a sample: `past_4` to `past_1`, then `image`, then `next_2` to `next_5`.
"""

import functools
import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganrun.data.shard_uris import COMPUTED, package_folder
from ganrun.data.ustar import plain_members
from ganrun.storage import Folder, TooLargeError

SIZE, GARMENT = 64, 32
"""Pixels a side of a frame and of a garment."""
SPEED = 4
"""Most pixels a frame that a garment moves along an axis."""
PAST, HORIZONS = 4, 5
CLIPS, SHARDS = 5_000, 40
SHARD_NAMES = tuple(f"shard-{number:06d}.tar" for number in range(SHARDS))
FRAMES = (
    *(f"past_{back}.png" for back in range(PAST, 0, -1)),
    "png",
    *(f"next_{horizon}.png" for horizon in range(2, HORIZONS + 1)),
)
"""Extensions of the frames of a clip, in their order."""

Pixels = NDArray[np.uint8]


class MovingFashion(Folder):
    """Its folder in the package, with shards that are computed when they are read."""

    def __init__(self) -> None:
        super().__init__(package_folder(COMPUTED, "data.shards"))

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return the bytes of a shard, computed, or of another file."""
        if name not in SHARD_NAMES:
            return super().read(name, limit)
        data = shard(SHARD_NAMES.index(name))
        if limit is not None and len(data) > limit:
            raise TooLargeError(len(data), limit, f"{self.uri}/{name}")
        return data

    def list(self, name: str = "") -> list[str]:
        """Return the names of the files and the shards."""
        return sorted([*super().list(name), *(() if name else SHARD_NAMES)])


def shard(number: int) -> bytes:
    """Compute a shard: a tar with CLIPS / SHARDS clips."""
    buffer, each = io.BytesIO(), CLIPS // SHARDS
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in range(number * each, (number + 1) * each):
            for extension, pixels in zip(FRAMES, frames(clip), strict=True):
                content = png(pixels)
                member = tarfile.TarInfo(f"{clip:08d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def frames(clip: int) -> Pixels:
    """Return the frames of a clip, uint8 [PAST + HORIZONS, SIZE, SIZE]: where garments cross, the brighter is seen.

    Places and speeds are drawn from the clip's number. A garment moves 1 to SPEED pixels a frame along each axis, and
    is reflected at the border.
    """
    drawn = hashlib.blake2b(f"{COMPUTED}:{clip}".encode(), digest_size=64).digest()
    made = np.zeros((len(FRAMES), SIZE, SIZE), np.uint8)
    for which in range(2):
        garment = garments()[clip + which * CLIPS]
        rows, columns = (_places(drawn[16 * which + 8 * axis :]) for axis in range(2))
        for frame, (row, column) in enumerate(zip(rows, columns, strict=True)):
            part = made[frame, row : row + GARMENT, column : column + GARMENT]
            np.maximum(part, garment, out=part)
    return made


def _places(drawn: bytes) -> list[int]:
    """Return where a garment begins along an axis, in pixels, in each frame."""
    reach = SIZE - GARMENT
    start, speed = int.from_bytes(drawn[:4], "big") % (2 * reach), 1 + int.from_bytes(drawn[4:8], "big") % SPEED
    unfolded = ((start + speed * frame) % (2 * reach) for frame in range(len(FRAMES)))
    return [min(at, 2 * reach - at) for at in unfolded]


@functools.cache
def garments() -> Pixels:
    """Return the garments of package:fashion-mnist-10k in their order, uint8 [2 CLIPS, GARMENT, GARMENT]."""
    folder, found = files("ganrun.data") / "fashion-mnist-10k", []
    for name in sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".tar.gz")):
        for member, content in plain_members(gzip.decompress((folder / name).read_bytes())) or []:
            if member.endswith(".png"):
                found.append(np.asarray(Image.open(io.BytesIO(content))))
    return np.stack(found)


def png(pixels: Pixels) -> bytes:
    """Return uint8 [H, W], fewer than 65,536 with a byte a row, as a PNG without compression (RFC 1951, 3.2.4)."""
    height, width = pixels.shape
    lines = np.zeros((height, width + 1), np.uint8)  # Each line after its filter type, 0.
    lines[:, 1:] = pixels
    raw = lines.tobytes()
    stored = struct.pack("<BHH", 1, len(raw), len(raw) ^ 0xFFFF) + raw
    stream = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
