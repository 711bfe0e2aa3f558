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
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from ganrun.data.cache import ShardCache

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


class DecodedCache:
    """Files of decoded images in the folder of a shard cache, whose limit they share.

    Args:
        cache: the shard cache.
    """

    def __init__(self, cache: ShardCache) -> None:
        self.cache = cache

    def open(self, sha256: str, form: str, samples: int, pixels: int) -> DecodedImages | None:
        """Open the file of a shard's images, or create it; None if the disk does not allow that.

        Args:
            sha256: of the shard.
            form: what is decoded, and how; with the hash it names the file.
            samples: number of samples in the shard.
            pixels: bytes of an image.
        """
        name = f"{sha256}.{form}.{DECODERS}"
        file = self.cache.open_sized(name, samples * (CHECKSUM_BYTES + pixels))
        return None if file is None else DecodedImages(self.cache, file, pixels)


def open_decoded(cache: ShardCache | None, samples: int, image_bytes: int) -> DecodedCache | None:
    """Return the cache of decoded images for a data set that it can hold as a whole; None if it cannot.

    A part of a data set would be evicted before it is read again.

    Args:
        cache: the shard cache, or None.
        samples: number of samples in the data set.
        image_bytes: bytes of all decoded images of a sample.
    """
    fits = cache is not None and image_bytes and samples * (image_bytes + CHECKSUM_BYTES) <= cache.limit
    return DecodedCache(cache) if cache and fits else None
