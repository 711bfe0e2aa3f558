"""Makes data sets of points from a mixture of Gaussians. A point is a 1x1 image, its mode the label."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ganrun import __version__
from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.errors import UserError
from ganrun.evaluation.modes import MIXTURES, Floats, Mixture, picture
from ganrun.preparation.fields import Members
from ganrun.preparation.pack import compress, find_earlier, note, write_tar
from ganrun.preparation.preview import PREVIEW_NAME
from ganrun.preparation.sources import UNFINISHED_NAME
from ganrun.storage import check_rights, open_storage

SHARDS = 8
"""Number of shards: up to 8 workers can each read shards of their own."""


def make_points(source: str, dest: str, samples: int, seed: int) -> Index:
    """Write a data set of points, balanced over the modes.

    A sample has a .json, the list of coordinates divided by the mixture's scale, and a .cls, the mode. Shards are
    gzipped: tar headers are larger than points.

    Args:
        source: name of the mixture, such as `gaussians:8`.
        dest: folder or URI of the data set.
        samples: number of points.
        seed: seed of the draw.

    Raises:
        UserError: no such mixture, or the destination cannot be written or holds another data set.
    """
    if source not in MIXTURES:
        raise UserError(f"SOURCE {source!r}: no such mixture; use {' or '.join(MIXTURES)}")
    of = MIXTURES[source]
    made: dict[str, Any] = {"source": source, "samples": samples, "seed": seed, "scale": of.scale, "sd": of.sd}
    made |= {"offset": of.offset} if of.offset else {}
    points, labels = draw(of, samples, seed)
    members = [
        {"json": point_json(point), "cls": str(int(label)).encode()}
        for point, label in zip(points, labels, strict=True)
    ]
    classes = tuple(f"({', '.join(f'{x:.3g}' for x in centre)})" for centre in of.centres.round(9) + 0.0)
    counts = np.bincount(labels, minlength=len(of.centres)).tolist()
    preview = picture(points, of, source)
    return pack_points(dest, made, members, of.centres.shape[1], classes, {"images_of_class": counts}, preview)


def pack_points(
    dest: str,
    made: dict[str, Any],
    samples: Sequence[Members],
    numbers: int,
    classes: tuple[str, ...],
    facts: dict[str, Any],
    preview: bytes,
) -> Index:
    """Write a data set of points, unless the same command has finished it.

    Args:
        dest: folder or URI of the data set.
        made: options that determine the content, which the index records.
        samples: members of each sample by extension.
        numbers: N.
        classes: class names by number; empty without labels.
        facts: what the index records beside.
        preview: preview.png.

    Raises:
        UserError: the destination cannot be written or holds another data set.
    """
    place = open_storage(dest)
    check_rights(place, "DEST")
    finished, _ = find_earlier(place, made)
    if finished:
        return finished
    note(place, made, {})
    shards = []
    parts = min(SHARDS, len(samples))
    for number, (start, stop) in enumerate(pairwise(len(samples) * part // parts for part in range(parts + 1))):
        data, count = write_tar((f"{n:08d}", samples[n]) for n in range(start, stop))
        shard = compress(data)
        name = f"shard-{number:06d}.tar.gz"
        place.write(name, shard)
        shards.append(Shard(name, count, len(shard), hashlib.sha256(shard).hexdigest()))
    index = Index(1, numbers, classes, tuple(shards), {**made, "by": f"ganrun {__version__}", **facts})
    place.write(PREVIEW_NAME, preview)
    place.write(INDEX_NAME, index.to_json())
    place.delete(UNFINISHED_NAME)
    return index


def draw(of: Mixture, samples: int, seed: int) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Draw points float32 [B, N], divided by the scale, and their modes int64 [B], in random order."""
    stream = np.random.Generator(np.random.Philox(seed))
    labels = stream.permutation(np.arange(samples) % len(of.centres))
    points = of.centres[labels] + of.sd * stream.standard_normal((samples, of.centres.shape[1]))
    return ((points - of.offset) / of.scale).astype(np.float32), labels


def point_json(point: Floats) -> bytes:
    """Return the numbers of a point float32 [N] as JSON; NaN becomes null."""
    # NumPy prints the shortest text that parses back to the same float32.
    return f"[{', '.join(map(str, point))}]".replace("nan", "null").encode()
