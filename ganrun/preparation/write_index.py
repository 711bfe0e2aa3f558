"""Completes a data set: writes the list of skipped images, the preview, and last the index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ganrun import __version__
from ganrun.data.index import INDEX_NAME, EmbeddingField, Index, PictureField, Shard
from ganrun.errors import UserError
from ganrun.preparation.convert_image import EXTENSIONS, Rule
from ganrun.preparation.convert_samples import SampleCounts
from ganrun.preparation.labels import check_largest
from ganrun.preparation.preview import PREVIEW_NAME, preview
from ganrun.preparation.sources import Source
from ganrun.storage import INDEX_BYTES, Storage

SKIPPED_NAME = "skipped.txt"
COUNTED_EXTENSIONS = 100
"""Most extensions whose numbers are recorded. More are parts of names with dots."""


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


def finish(
    dest: Storage,
    source: Source,
    rule: Rule,
    made: dict[str, Any],
    results: Sequence[PackedShard],
    embedding: EmbeddingField | None = None,
) -> Index:
    """Write skipped.txt, preview.png and index.json, in this order, and return the index.

    Args:
        dest: the data set.
        source, rule, made: see `pack`.
        results: the shards.
        embedding: the encoder of its captions; None: they are not embedded.

    Raises:
        UserError: no image is readable, labels are identifiers, or the index would be too large to read.
    """
    counts = SampleCounts([0] * rule.channels)
    for result in results:
        counts.add(result.counts)
    shards = tuple(result.shard for result in results if result.shard and result.shard.samples)
    if not shards:
        raise UserError(f"{source.name}: no readable image; the first fault: {next(iter(counts.skipped), 'no sample')}")
    counts.skipped = [*source.remarks.unread, *counts.skipped]
    pixels = sum(shard.samples for shard in shards) * rule.size**2
    classes = _classes(source, counts)
    facts = {
        "by": f"ganrun {__version__}",
        "images_of_class": [counts.labels.get(str(number), 0) for number in range(len(classes))],
        "channel_means": [round(total / pixels, 4) for total in counts.sums],
        "skipped": len(counts.skipped),
        "enlarged": counts.enlarged,
        **_remarks(source, counts),
    }
    captions, numbers = counts.embedding
    embedding = replace(embedding, size=numbers, captions=captions) if embedding and captions else None
    index = Index(rule.size, rule.channels, classes, shards, {**made, **facts}, _pictures(shards, counts), embedding)
    content = _content(index, source)
    dest.delete(SKIPPED_NAME)  # That of an earlier index.
    if counts.skipped:
        dest.write(SKIPPED_NAME, ("\n".join(counts.skipped) + "\n").encode())
    dest.write(PREVIEW_NAME, preview(dest, index))
    dest.write(INDEX_NAME, content)
    return index


def _content(index: Index, source: Source) -> bytes:
    """Return the bytes of `index.json`.

    Raises:
        UserError: they are more than are read.
    """
    content = index.to_json()
    if len(content) > INDEX_BYTES:
        raise UserError(
            f"{source.name}: an index of {len(content):,} bytes for {len(index.shards):,} shards and "
            f"{len(index.classes):,} classes, at most {INDEX_BYTES:,} are read; make fewer, larger shards"
        )
    return content


def _classes(source: Source, counts: SampleCounts) -> tuple[str, ...]:
    """Return the class names of the source if they cover all labels, else the numbers as names.

    Raises:
        UserError: the largest label is far above the number of labels.
    """
    needed = max(map(int, counts.labels), default=-1) + 1
    if needed > len(source.classes):
        check_largest(needed - 1, len(counts.labels), f"{source.name}: .cls")
    return source.classes if len(source.classes) >= needed else tuple(map(str, range(needed)))


def _pictures(shards: Sequence[Shard], counts: SampleCounts) -> dict[str, PictureField]:
    """Return the further pictures that every sample has, by field, if they are square and all of one shape."""
    samples = sum(shard.samples for shard in shards)
    names = sorted({extension.rpartition(".")[0] for extension in counts.shapes})
    found = {}
    for name in names:
        kinds = [extension for extension in counts.shapes if extension.rpartition(".")[0] == name]
        shapes = {tuple(counts.shapes[extension]) for extension in kinds}
        first = next(iter(shapes))
        alike = len(shapes) == 1 and len(first) == 3 and first[0] == first[1]
        if alike and sum(counts.members[extension] for extension in kinds) == samples:
            found[name] = PictureField(size=first[0], channels=first[2])
    return found


def _remarks(source: Source, counts: SampleCounts) -> dict[str, Any]:
    """Return what the index records about members, labels and files that were left out."""
    extensions = {name: number for name, number in sorted(counts.members.items()) if name not in EXTENSIONS}
    facts: dict[str, Any] = {
        "first_without_label": counts.unlabelled if counts.labels else "",
        "numbering": source.remarks.numbering,
        "left_out": list(source.remarks.left_out),
        "licences": list(source.remarks.licences),
    }
    counted = {"members": extensions} if len(extensions) <= COUNTED_EXTENSIONS else {}
    return counted | {key: value for key, value in facts.items() if value}
