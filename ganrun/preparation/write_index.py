"""Completes a data set: writes the list of skipped images, the preview, and last the index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ganrun import __version__
from ganrun.data.index import INDEX_NAME, Index, Shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import Rule
from ganrun.preparation.convert_samples import SampleCounts
from ganrun.preparation.preview import PREVIEW_NAME, preview
from ganrun.preparation.sources import Source
from ganrun.storage import Storage

SKIPPED_NAME = "skipped.txt"


@dataclass(frozen=True)
class PackedShard:
    """Finished shard, or None if no image of it was readable, with its counters."""

    shard: Shard | None
    counts: SampleCounts

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "PackedShard":
        """Restore from the result of `dataclasses.asdict`."""
        counts = fields.get("counts") or fields["tally"]  # ganrun 0.1 wrote "tally".
        return cls(Shard(**fields["shard"]) if fields["shard"] else None, SampleCounts(**counts))


def finish(dest: Storage, source: Source, rule: Rule, made: dict[str, Any], results: Sequence[PackedShard]) -> Index:
    """Write skipped.txt, preview.png and index.json, in this order, and return the index.

    Raises:
        UserError: no image is readable.
    """
    counts = SampleCounts([0] * rule.channels)
    for result in results:
        counts.add(result.counts)
    shards = tuple(result.shard for result in results if result.shard and result.shard.samples)
    if not shards:
        raise UserError(f"{source.name}: no readable image; the first fault: {next(iter(counts.skipped), 'no sample')}")
    pixels = sum(shard.samples for shard in shards) * rule.size**2
    classes = _classes(source, counts)
    facts = {
        "by": f"ganrun {__version__}",
        "images_of_class": [counts.labels.get(str(number), 0) for number in range(len(classes))],
        "channel_means": [round(total / pixels, 4) for total in counts.sums],
        "skipped": len(counts.skipped),
        "enlarged": counts.enlarged,
    }
    index = Index(rule.size, rule.channels, classes, shards, {**made, **facts})
    if counts.skipped:
        dest.write(SKIPPED_NAME, ("\n".join(counts.skipped) + "\n").encode())
    dest.write(PREVIEW_NAME, preview(dest, index))
    dest.write(INDEX_NAME, index.to_json())
    return index


def _classes(source: Source, counts: SampleCounts) -> tuple[str, ...]:
    """Return the class names of the source if they cover all labels, else the numbers as names."""
    needed = max((int(label) for label in counts.labels), default=-1) + 1
    return source.classes if len(source.classes) >= needed else tuple(map(str, range(needed)))
