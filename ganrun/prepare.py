"""Make a data set: images from a folder, bucket or published data set to WebDataset shards with an index."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from ganrun.cli import command
from ganrun.errors import RunError, UserError, escaped
from ganrun.storage import expand_user

if TYPE_CHECKING:  # imported where they are used: --help must answer at once
    from ganrun.data.index import Index
    from ganrun.preparation.convert_image import Rule
    from ganrun.preparation.sources import Source

EXAMPLES = """\
examples:
  ganrun prepare folder:photos data/photos --size 64       sub-folders become classes
  ganrun prepare fashion-mnist:downloads data/fashion --download
  ganrun prepare celeba:downloads data/celeba              64x64, from the centre square of 178 pixels
  ganrun prepare gaussians:25 data/gaussians25             points of a mixture, for model.name=mlp
  ganrun prepare stacked:package:fashion-mnist-10k data/stacked   three grey images as RGB: 1,000 modes
  ganrun prepare shards:data/faces                         index existing shards: writes data/faces/index.json
  ganrun prepare shards:data/faces data/faces32 --size 32  copy and resize existing shards
  ganrun prepare folder:photos s3://bucket/photos --size 64  folder:, shards: and DEST may be in a bucket

The same command continues an interrupted one. The last line on stdout is the path of the data set;
everything else goes to stderr. preview.png beside the index shows 64 samples: look before you train.
"""

SCHEMES = ("folder", "fashion-mnist", "cifar10", "celeba", "stacked", "gaussians", "shards")
DRAWN = ("stacked", "gaussians")
IMAGES = tuple(scheme for scheme in SCHEMES if scheme != "gaussians")
ONLY_FOR = {
    "fields": ("folder",),
    "download": ("fashion-mnist", "cifar10", "celeba", "stacked"),
    "limit": ("folder", "fashion-mnist", "cifar10", "celeba"),
    "samples": DRAWN,
    "seed": DRAWN,
    "shard_samples": ("folder", "fashion-mnist", "cifar10", "celeba", "stacked"),
    **dict.fromkeys(("size", "channels", "format", "gzip", "strict", "verify"), IMAGES),
}
DEFAULT_SAMPLES = 50_000
FILTERS = ("box", "bilinear", "bicubic", "lanczos")
FORMATS = ("png", "jpg", "webp")
_SOURCES = ", ".join(f"{name}:PATH" for name in IMAGES)
_FIELDS_HELP = """fields of a folder's images: a .csv (path in the first column) or a .jsonl (path under "file");
label becomes .cls, text .txt, the rest .json"""
_DEST_HELP = "new folder or s3://BUCKET/PREFIX; without it, shards: are indexed in place"
SHOWN_SKIPPED, SHOWN_CLASSES = 20, 10


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    return command.run(lambda: _prepare_escaped(options))


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "prepare", "Make a data set for ganrun.train: shards of images and an index.json.", EXAMPLES
    )
    parser.add_argument("source", metavar="SOURCE", help=f"{_SOURCES}; gaussians:8 or gaussians:25 need no PATH")
    parser.add_argument("dest", metavar="DEST", nargs="?", help=_DEST_HELP)
    _add_image_options(parser.add_argument_group("images").add_argument)
    _add_run_options(parser.add_argument_group("data set and run").add_argument)
    return parser


def _add_image_options(add: Callable[..., Any]) -> None:
    add("--size", type=_size, metavar="N", help="crop the centre square and resize it to NxN pixels")
    add("--channels", type=int, choices=(1, 3), help="convert all images to grey (1) or RGB (3)")
    # StyleGAN's data sets were made with Lanczos. All of Pillow's filters antialias when they shrink an image, which
    # matters more than the choice (Parmar et al. 2022, arXiv:2104.11222).
    add("--filter", choices=FILTERS, default="lanczos", help="resize filter (default: %(default)s); affects scores")
    add("--format", choices=FORMATS, help="image format (default: keep files that need no conversion, others png)")
    add("--fields", metavar="FILE", help=_FIELDS_HELP)


def _add_run_options(add: Callable[..., Any]) -> None:
    add("--limit", type=_positive, metavar="N", help="take the first N images; of folder:, N at random (default: all)")
    add("--samples", type=_positive, metavar="N", help="samples to draw for stacked: and gaussians: (default: 50,000)")
    add("--seed", type=int, metavar="S", help="seed of stacked: and gaussians: (default: 0)")
    add(
        "--shard-samples",
        type=_positive,
        metavar="N",
        help="maximum number of images per shard (default: 4096, at most 128 MiB decoded, at least 8 shards)",
    )
    add("--gzip", action="store_true", help="write .tar.gz, for images smaller than their tar headers")
    add("--download", action="store_true", help="let torchvision download a published data set to PATH")
    add("--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)")
    add("--strict", action="store_true", help="fail on an unreadable image instead of skipping it")
    add(
        "--verify",
        action="store_true",
        help="check sizes, hashes and every image at the end; for shards: with an index, do nothing else",
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 1")
    return int(text)


def _size(text: str) -> int:
    if not text.isdigit() or not 4 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 4 to 4096")
    return int(text)


def _prepare_escaped(options: argparse.Namespace) -> int:
    """Run the command. Names from outside do not break the one line of an error."""
    try:
        return _prepare(options)
    except (UserError, RunError) as error:
        raise type(error)(escaped(str(error))) from error


def _prepare(options: argparse.Namespace) -> int:
    from ganrun.data.index import INDEX_NAME
    from ganrun.preparation.existing_shards import verify
    from ganrun.storage import open_storage

    begin = time.monotonic()
    scheme, _, path = options.source.partition(":")
    _check(options, scheme, path)
    dest = options.dest or path.rstrip("/")
    skipped: list[str] = []
    only_verify = options.verify and not options.dest and INDEX_NAME in open_storage(dest).list()
    if not only_verify:
        index, skipped = _make(options, scheme, path)
    if options.verify:
        index = verify(dest, options.workers)
    _report(index, skipped, dest, time.monotonic() - begin)
    print(escaped(dest))
    return command.OK


def _check(options: argparse.Namespace, scheme: str, path: str) -> None:
    """Check options against each other.

    Raises:
        UserError: an unknown source, a missing DEST, or options that do not go together.
    """
    if scheme not in SCHEMES or not path:
        raise UserError(f"SOURCE {options.source!r}: unknown; use {_SOURCES}, gaussians:8 or gaussians:25")
    for name, schemes in ONLY_FOR.items():
        if getattr(options, name) and scheme not in schemes:
            raise UserError(f"--{name.replace('_', '-')}: only for {', '.join(schemes)}, not for {scheme}:")
    if options.dest is None:
        if scheme != "shards":
            raise UserError(f"DEST is missing; give a folder or s3://BUCKET/PREFIX for the shards of {options.source}")
        if changing := [name for name in ("size", "channels", "format", "gzip") if getattr(options, name)]:
            raise UserError(f"--{changing[0]}: needs a DEST, since shards are never changed in place")
    elif scheme not in ("fashion-mnist", *DRAWN):
        source, dest = (_address(place) for place in (path, options.dest))
        if dest.is_relative_to(source):
            raise UserError(f"DEST {options.dest}: is inside SOURCE {path}; choose a folder outside it")


def _address(place: str) -> PurePath:
    """Normalise a path or URI for comparison."""
    if place.startswith("s3://"):
        return PurePosixPath(place)
    return Path(expand_user(place.removeprefix("file://"))).resolve()


def _make(options: argparse.Namespace, scheme: str, path: str) -> tuple["Index", list[str]]:
    from ganrun.preparation.existing_shards import index_in_place
    from ganrun.preparation.pack import Packer, pack
    from ganrun.preparation.plan import plan_rule
    from ganrun.preparation.points import make_points
    from ganrun.preparation.shards import ShardsSource

    if scheme == "gaussians":
        return make_points(options.source, options.dest, options.samples or DEFAULT_SAMPLES, options.seed or 0), []
    source = _open_source(options, scheme, path)
    rule = plan_rule(source, options.size, options.channels, options.filter, options.format, options.workers)
    how = _how(options, source, rule)
    if options.dest is None:
        assert isinstance(source, ShardsSource)
        return index_in_place(source, rule, how, options.workers)
    packer = Packer(source, rule, options.dest, options.gzip, options.strict)
    try:
        return pack(packer, how, options.shard_samples, options.workers)
    except OSError as error:
        where = error.filename or options.dest
        raise RunError(f"{where}: {error.strerror or error}; fix it and run the same command to continue") from error


def _open_source(options: argparse.Namespace, scheme: str, path: str) -> "Source":
    from ganrun.preparation import folder, published_datasets, shards, stacked

    if scheme == "folder":
        return folder.open_folder(path, options.fields and Path(expand_user(options.fields)), options.limit)
    if scheme == "shards":
        return shards.open_shards(path, copied=options.dest is not None)
    if scheme == "fashion-mnist":
        return published_datasets.open_fashion_mnist(path, options.limit, options.download)
    if scheme == "cifar10":
        return published_datasets.open_cifar10(path, options.limit, options.download)
    if scheme == "stacked":
        samples = options.samples or DEFAULT_SAMPLES
        return stacked.open_stacked(path, samples, options.seed or 0, options.download)
    return published_datasets.open_celeba(path, options.limit, options.download)


def _how(options: argparse.Namespace, source: "Source", rule: "Rule") -> dict[str, Any]:
    """Return the options that determine the content. The index records them, to recognise the same data set."""
    if options.dest is None:
        return {"source": "shards, where they are"}
    return {
        "source": source.name,
        "size": rule.size,
        "channels": rule.channels,
        "resize": f"centre square, {rule.filter}" if rule.resize else "none",
        "transparency": "onto white",
        "format": rule.format or "kept, else png",
        "order": "as in the source" if source.name == "shards" else "shuffled",
        "limit": options.limit,
        "shard_samples": options.shard_samples,
        "gzip": options.gzip,
    }


def _report(index: "Index", skipped: list[str], dest: str, seconds: float) -> None:
    """Print a summary of the data set to stderr."""
    made, mib = index.made, sum(shard.bytes for shard in index.shards) / 2**20
    lines = [f"skipped {line}" for line in skipped[:SHOWN_SKIPPED]]
    if len(skipped) > SHOWN_SKIPPED:
        lines.append(f"skipped {len(skipped) - SHOWN_SKIPPED:,} more: see {dest}/skipped.txt")
    if index.image_size == 1:
        what = f"{index.samples:,} points of {index.channels} numbers"
    else:
        size = f"{index.image_size}x{index.image_size}"
        what = f"{index.samples:,} images, {made.get('skipped', 0):,} skipped; {size}, channels: {index.channels}"
    lines.append(f"{what}, shards: {len(index.shards)} ({mib:.1f} MiB); {seconds:.1f} s")
    lines += _absences(index)
    if made.get("enlarged"):
        lines.append(f"{made['enlarged']:,} images were smaller and were enlarged: they will look blurred")
    if index.classes:
        counts = [f"{name} {n:,}" for name, n in zip(index.classes, made.get("images_of_class", ()), strict=False)]
        more = f", and {len(counts) - SHOWN_CLASSES} more" if len(counts) > SHOWN_CLASSES else ""
        numbering = f"; {made['numbering']}" if made.get("numbering") else ""
        lines.append(f"classes: {len(index.classes)} ({', '.join(counts[:SHOWN_CLASSES])}{more}){numbering}")
    if means := " ".join(f"{mean:.1f}" for mean in made.get("channel_means", ())):
        lines.append(f"channel means (0 to 255): {means}")
    lines.append(f"preview: {dest}/preview.png")
    print("\n".join(map(escaped, lines)), file=sys.stderr)


def _absences(index: "Index") -> list[str]:
    """Return lines on members that only some samples have, and on files that are no images or no shards."""
    made, lines = index.made, []
    for extension, number in list(made.get("members", {}).items())[:SHOWN_CLASSES]:
        if number < index.samples:
            first = f" (the first: {made['first_without_label']})" if extension == "cls" else ""
            lines.append(f"{index.samples - number:,} of {index.samples:,} samples have no .{extension}{first}")
    if left_out := made.get("left_out"):
        lines.append(f"left out, as other files: {'; '.join(left_out[:SHOWN_CLASSES])}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
