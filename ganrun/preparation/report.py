"""Summary of a data set in words."""

import sys

from ganrun.data.index import Index
from ganrun.errors import counted, escaped

SHOWN_SKIPPED, SHOWN_CLASSES = 20, 10


def report(index: Index, skipped: list[str], dest: str, seconds: float) -> None:
    """Print what was made of a data set to stderr."""
    lines = [f"skipped {line}" for line in skipped[:SHOWN_SKIPPED]]
    if len(skipped) > SHOWN_SKIPPED:
        lines.append(f"skipped {len(skipped) - SHOWN_SKIPPED:,} more: see {dest}/skipped.txt")
    lines += [*describe(index), f"preview: {dest}/preview.png; {seconds:.1f} s"]
    print("\n".join(map(escaped, lines)), file=sys.stderr)


def describe(index: Index) -> list[str]:
    """Return lines on the numbers, sizes, classes and means of a data set."""
    made, mib = index.made, sum(shard.bytes for shard in index.shards) / 2**20
    lines = []
    if index.image_size == 1:
        what = f"{counted(index.samples, 'point')} of {counted(index.channels, 'number')}"
    else:
        size = f"{index.image_size}x{index.image_size}"
        skipped = f"{made.get('skipped', 0):,} skipped"
        what = f"{counted(index.samples, 'image')}, {skipped}; {size}, channels: {index.channels}"
    lines.append(f"{what}, shards: {len(index.shards)} ({mib:.1f} MiB)")
    for name, shape in index.pictures.items():
        lines.append(f"each with {name}: {shape.size}x{shape.size}, channels: {shape.channels}")
    if embedding := index.embedding:
        most = f"up to {embedding.captions} captions" if embedding.captions > 1 else "a caption"
        lines.append(f"each with {most}, embedded by {embedding.encoder} ({embedding.size} numbers)")
    lines += _absences(index)
    if patches := made.get("patches"):
        lines.append(f"patches: {index.samples:,} of {patches['of']:,} are kept, those with most texture")
    if made.get("enlarged"):
        lines.append(
            f"enlarged, since they were smaller: {counted(made['enlarged'], 'image')}, which will look blurred"
        )
    if index.classes:
        counts = [f"{name} {n:,}" for name, n in zip(index.classes, made.get("images_of_class", ()), strict=False)]
        more = f", and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
        numbering = f"; {made['numbering']}" if made.get("numbering") else ""
        lines.append(f"classes: {len(index.classes)} ({', '.join(counts[:SHOWN_CLASSES])}{more}){numbering}")
    if means := " ".join(f"{mean:.1f}" for mean in made.get("channel_means", ())):
        lines.append(f"channel means (0 to 255): {means}")
    lines += made.get("licences", ())
    return lines


def _absences(index: Index) -> list[str]:
    """Return lines on members that only some samples have, and on what is no image or no shard."""
    made, lines = index.made, []
    for extension, number in list(made.get("members", {}).items())[:SHOWN_CLASSES]:
        if number < index.samples:
            first = f" (the first: {made['first_without_label']})" if extension == "cls" else ""
            lines.append(f"{index.samples - number:,} of {index.samples:,} samples have no .{extension}{first}")
    if left_out := made.get("left_out"):
        lines.append(f"left out: {'; '.join(left_out[:SHOWN_CLASSES])}")
    return lines
