"""Disk cache of decoded images, shared by all runs and ranks of a machine: from the second epoch on nothing is decoded.

A shard and a form of its images have a file with a record for each sample: a checksum and the pixels, all of one size,
at the sample's number. Whoever decodes an image first writes its record; all others read it through the page cache. A
record that is missing, cut short or corrupt is decoded again, so a crash at any moment costs work and nothing else. Two
processes that decode the same image write the same bytes.

Files are read and written by position, not mapped: a full disk is an error that is caught, and not a signal.
"""

import os
import weakref
import zlib
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from ganrun.data.cache import ShardCache
from ganrun.data.index import Index

CHECKSUM_BYTES = 4
DECODERS = "+".join(f"{name}-{version(name)}" for name in ("simplejpeg", "torchvision"))
"""Programs that decode: others may round otherwise."""


class DecodedImages:
    """Records of the decoded images of one shard in one form.

    Args:
        cache: the cache that it belongs to.
        file: descriptor of the file, which is closed with this object.
        pixels: bytes of an image.
    """

    def __init__(self, cache: ShardCache, file: int, pixels: int) -> None:
        self._cache, self._file, self._record = cache, file, CHECKSUM_BYTES + pixels
        weakref.finalize(self, os.close, file)

    def read(self, number: int, out: NDArray[np.uint8]) -> bool:
        """Read image `number` into contiguous memory. Return False if it is not there, or corrupt."""
        checksum = bytearray(CHECKSUM_BYTES)
        try:
            found = os.preadv(self._file, [checksum, out.data], number * self._record)
        except OSError:
            return False
        # A record that was never written is all zeros, whose CRC-32 is not zero.
        return found == self._record and zlib.crc32(out.data) == int.from_bytes(checksum, "little")

    def write(self, number: int, image: NDArray[np.uint8]) -> None:
        """Write image `number` from contiguous memory."""
        if self._cache.broken:
            return
        checksum = zlib.crc32(image.data).to_bytes(CHECKSUM_BYTES, "little")
        with self._cache.ignoring_errors():
            os.pwritev(self._file, [checksum, image.data], number * self._record)


def open_images(cache: ShardCache, sha256: str, form: str, samples: int, pixels: int) -> DecodedImages | None:
    """Open the file of a shard's images in the folder of a cache, or create it; None if the disk does not allow that.

    Args:
        cache: the shard cache, whose limit holds for both.
        sha256: of the shard.
        form: what is decoded, and how; with the hash it names the file.
        samples: number of samples in the shard.
        pixels: bytes of an image.
    """
    file = cache.open_sized(f"{sha256}.{form}.{DECODERS}", samples * (CHECKSUM_BYTES + pixels))
    return None if file is None else DecodedImages(cache, file, pixels)


def fit(cache: ShardCache, index: Index, image_bytes: Iterable[int]) -> bool:
    """Return True if all decoded images of a data set fit in a cache beside its shards.

    If only a part did, images or shards would be evicted before they are read again.

    Args:
        cache: the shard cache.
        index: index of the data set.
        image_bytes: bytes of each decoded image of a sample.
    """
    of_a_sample = sum(CHECKSUM_BYTES + size for size in image_bytes)
    return index.samples * of_a_sample + sum(shard.bytes for shard in index.shards) <= cache.limit
