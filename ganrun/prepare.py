"""Make a data set: images from a folder, bucket or published data set to WebDataset shards with an index."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from ganrun.cli import command
from ganrun.cli.arguments import names, positive, share, size
from ganrun.errors import RunError, UserError, escaped
from ganrun.preparation.clip_rule import CLIP_OPTIONS, add_clip_options, rule_of
from ganrun.storage import expand_user

if TYPE_CHECKING:  # imported where they are used: --help must answer at once
    from ganrun.data.index import Index
    from ganrun.preparation.convert_image import Rule
    from ganrun.preparation.sources import Source

EXAMPLES = """\
examples:
  ganrun prepare folder:photos data/photos --size 64       sub-folders become classes
  ganrun prepare folder:photos data/patches --size 64 --patches 0.5   the half of all 64x64 patches with most texture
  ganrun prepare table:letter.csv data/letter              a table of numbers; empty cells are missing numbers
  ganrun prepare fashion-mnist:downloads data/fashion --download
  ganrun prepare celeba:downloads data/celeba              64x64, from the centre square of 178 pixels
  ganrun prepare gaussians:25 data/gaussians25             points of a mixture, for model.name=mlp
  ganrun prepare pairs:photos,sketches data/sketches --size 64   two pictures a sample, paired by their names
  ganrun prepare video:films data/clips --size 64          clips of 4 past frames and 3 to predict; over no cut
  ganrun prepare hub:org/name data/name --size 64          a Hugging Face data set in the local cache or a folder
  ganrun prepare stacked:package:fashion-mnist-10k data/stacked   three grey images as RGB: 1,000 modes
  ganrun prepare shards:data/faces                         index existing shards: writes data/faces/index.json
  ganrun prepare folder:birds data/birds --size 64 --fields captions.jsonl --embed     with embedded captions
  ganrun prepare shards:package:fluent-emoji --show        draws random samples into samples.png
  ganrun prepare shards:data/faces data/faces32 --size 32  copy and resize existing shards
  ganrun prepare folder:photos s3://bucket/photos --size 64  folder:, shards: and DEST may be in a bucket

The same command continues an interrupted one. The last line on stdout is the path of the data set;
everything else goes to stderr. preview.png beside the index shows 64 samples: look before you train.
"""

PUBLISHED = ("fashion-mnist", "cifar10", "celeba")
POINTS = ("gaussians", "points")
DRAWN = ("stacked", *POINTS)
FOLDERS = ("folder", "pairs", "side-by-side")
SCHEMES = (*FOLDERS, "iconify", "video", "hub", *PUBLISHED, *DRAWN, "table", "shards")
IMAGES = tuple(scheme for scheme in SCHEMES if scheme not in (*POINTS, "table"))
CHANGING = ("size", "channels", "format", "gzip", "strict", "verify", "embed")
ONLY_FOR = {
    "fields": FOLDERS,
    "names": ("pairs", "side-by-side", "iconify"),
    "download": ("hub", *PUBLISHED, "stacked"),
    "limit": (*FOLDERS, "hub", *PUBLISHED),
    "samples": DRAWN,
    "seed": DRAWN,
    "shard_samples": (*FOLDERS, "iconify", "video", "hub", *PUBLISHED, "stacked"),
    "show": ("shards",),
    "patches": ("folder",),
    "shrink": ("folder",),
    **dict.fromkeys(CHANGING, IMAGES),
    **dict.fromkeys(CLIP_OPTIONS, ("video",)),
}
PACKAGE = "package:"
DEFAULT_PICTURE = "samples.png"
DEFAULT_SAMPLES = 50_000
FILTERS = ("box", "bilinear", "bicubic", "lanczos")
FORMATS = ("png", "jpg", "webp")
_SOURCES = ", ".join("pairs:PATH,PATH" if name == "pairs" else f"{name}:PATH" for name in (*IMAGES, "table"))
_WITHOUT_PATH = "points:heights, points:gaussian, gaussians:8 or gaussians:25"
_FIELDS_HELP = """fields of a folder's images: a .csv (path in the first column) or a .jsonl (path under "file");
label becomes .cls, text (a caption, or a list) .txt, the rest .json"""
_NAMES_HELP = """fields of the pictures of a pair or of iconify: sets, in their order; one is image, the generated one
(default: image,source); image alone puts several sets together"""
_EMBED_HELP = "embed the text, a caption a line: minilm (default), a sentence-transformers folder or TorchScript .pt"
_PATCHES_HELP = """cut pictures of a folder into patches of --size instead, without overlap, and keep this share of all:
those with most texture"""
_DEST_HELP = "new folder or s3://BUCKET/PREFIX; without it, shards: are indexed in place; with --show, a .png"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return command.run(command.parse(_parser(), arguments), _prepare_escaped)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(
        "prepare", "Make a data set for ganrun.train: shards of images and an index.json.", EXAMPLES
    )
    parser.add_argument("source", metavar="SOURCE", help=f"{_SOURCES}; {_WITHOUT_PATH} need no PATH")
    parser.add_argument("dest", metavar="DEST", nargs="?", help=_DEST_HELP)
    _add_image_options(parser.add_argument_group("images").add_argument)
    add_clip_options(parser.add_argument_group("clips of a video").add_argument)
    _add_run_options(parser.add_argument_group("data set and run").add_argument)
    return parser


def _add_image_options(add: Callable[..., Any]) -> None:
    add("--size", type=size, metavar="N", help="crop the centre square and resize it to NxN pixels")
    add("--patches", type=share, metavar="SHARE", help=_PATCHES_HELP)
    add("--shrink", type=positive, metavar="N", help="cut patches of pictures at 1/N of their size (default: 1)")
    add("--channels", type=int, choices=(1, 3), help="convert all images to grey (1) or RGB (3)")
    # StyleGAN's data sets were made with Lanczos. All of Pillow's filters antialias when they shrink an image, which
    # matters more than the choice (Parmar et al. 2022, arXiv:2104.11222).
    add("--filter", choices=FILTERS, default="lanczos", help="resize filter (default: %(default)s); affects scores")
    add("--format", choices=FORMATS, help="image format (default: keep files that need no conversion, others png)")
    add("--fields", metavar="FILE", help=_FIELDS_HELP)
    add("--embed", nargs="?", const="minilm", metavar="ENCODER", help=_EMBED_HELP)
    add("--names", type=names, metavar="NAMES", help=_NAMES_HELP)


def _add_run_options(add: Callable[..., Any]) -> None:
    add("--limit", type=positive, metavar="N", help="take the first N images; of folder:, N at random (default: all)")
    add("--samples", type=positive, metavar="N", help="samples of stacked:, gaussians:, points: (default: 50,000)")
    add("--seed", type=int, metavar="S", help="seed of stacked:, gaussians:, points: and --show (default: 0)")
    add(
        "--shard-samples",
        type=positive,
        metavar="N",
        help="maximum number of images per shard (default: 4096, at most 128 MiB decoded, at least 8 shards)",
    )
    add("--gzip", action="store_true", help="write .tar.gz, for images smaller than their tar headers")
    add("--download", action="store_true", help="let a published data set, or one of hub:, be downloaded")
    add("--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)")
    add("--strict", action="store_true", help="fail on an unreadable image instead of skipping it")
    add(
        "--verify",
        action="store_true",
        help="check sizes, hashes and every image at the end; for shards: with an index, do nothing else",
    )
    add(
        "--show",
        action="store_true",
        help="draw random samples of shards: with labels and texts into a picture (default: samples.png)",
    )


def _prepare_escaped(options: argparse.Namespace) -> int:
    """Run the command. Names from outside do not break the one line of an error."""
    try:
        return _prepare(options)
    except (UserError, RunError) as error:
        raise type(error)(escaped(str(error))) from error


def _prepare(options: argparse.Namespace) -> int:
    scheme, _, path = options.source.partition(":")
    _check(options, scheme, path)
    if options.show:
        return _show(path, options.dest or DEFAULT_PICTURE, options.seed or 0)
    from ganrun.data.index import INDEX_NAME
    from ganrun.preparation.existing_shards import verify
    from ganrun.preparation.report import report
    from ganrun.storage import open_storage

    begin = time.monotonic()
    dest = options.dest or path.rstrip("/")
    skipped: list[str] = []
    only_verify = options.verify and not options.dest and INDEX_NAME in open_storage(dest).list()
    if not only_verify:
        index, skipped = _make(options, scheme, path)
    if options.verify:
        index = verify(dest, options.workers)
    report(index, skipped, dest, time.monotonic() - begin)
    print(escaped(dest))
    return command.OK


def _show(uri: str, file: str, seed: int) -> int:
    from ganrun.data.index import open_data
    from ganrun.preparation.report import describe
    from ganrun.preparation.show import show

    data = open_data(uri, key="SOURCE")
    show(data, Path(expand_user(file)), seed)
    print("\n".join(map(escaped, describe(data.index))), file=sys.stderr)
    print(escaped(file))
    return command.OK


def _check(options: argparse.Namespace, scheme: str, path: str) -> None:
    """Check options against each other.

    Raises:
        UserError: an unknown source, a missing DEST, or options that do not go together.
    """
    if scheme not in SCHEMES or not path:
        raise UserError(f"SOURCE {options.source!r}: unknown; use {_SOURCES}, {_WITHOUT_PATH}")
    for name, schemes in ONLY_FOR.items():
        if getattr(options, name) and scheme not in schemes and not (options.show and name == "seed"):
            raise UserError(f"--{name.replace('_', '-')}: only for {', '.join(schemes)}, not for {scheme}:")
    if options.patches and not options.size:
        raise UserError(f"--patches {options.patches}: needs the side of the patches in pixels; give --size")
    if options.shrink and not options.patches:
        raise UserError(f"--shrink {options.shrink}: is for patches; give --patches, or leave it out")
    if options.show:
        _check_show(options)
    elif options.dest is None:
        if scheme != "shards":
            raise UserError(f"DEST is missing; give a folder or s3://BUCKET/PREFIX for the shards of {options.source}")
        if path.startswith(PACKAGE):
            raise UserError(
                f"DEST is missing; {path} travels with ganrun and is not indexed anew: copy it, or --show it"
            )
        if changing := [name for name in ("size", "channels", "format", "gzip", "embed") if getattr(options, name)]:
            raise UserError(f"--{changing[0]}: needs a DEST, since shards are never changed in place")
    elif scheme not in ("fashion-mnist", *DRAWN):
        for place in path.split(",") if scheme == "pairs" else [path]:
            if _address(options.dest).is_relative_to(_address(place)):
                raise UserError(f"DEST {options.dest}: is inside SOURCE {place}; choose a folder outside it")


def _check_show(options: argparse.Namespace) -> None:
    if others := [name for name in CHANGING if getattr(options, name)]:
        raise UserError(f"--{others[0]}: not together with --show, which changes nothing")
    if options.dest and not options.dest.endswith(".png"):
        raise UserError(f"DEST {options.dest}: with --show it is the picture; give a file that ends with .png")


def _address(place: str) -> PurePath:
    """Normalise a path or URI for comparison."""
    if place.startswith("s3://"):
        return PurePosixPath(place)
    return Path(expand_user(place.removeprefix("file://"))).resolve()


def _make(options: argparse.Namespace, scheme: str, path: str) -> tuple["Index", list[str]]:
    from ganrun.preparation.embed import open_embedder
    from ganrun.preparation.existing_shards import index_in_place
    from ganrun.preparation.pack import Packer, pack
    from ganrun.preparation.plan import plan_rule
    from ganrun.preparation.points import make_points
    from ganrun.preparation.shards import ShardsSource
    from ganrun.preparation.table import make_table

    if scheme in POINTS:
        return make_points(options.source, options.dest, options.samples or DEFAULT_SAMPLES, options.seed or 0), []
    if scheme == "table":
        return make_table(path, options.dest), []
    source = _open_source(options, scheme, path)  # Before the encoder, which takes long to open.
    embed = open_embedder(options.embed)
    encoded = {"captions": f"{embed.field.encoder} sha256:{embed.field.sha256}"} if embed else {}
    rule = plan_rule(source, options.size, options.channels, options.filter, options.format, options.workers)
    how = _how(options, source, rule) | encoded
    if options.dest is None:
        assert isinstance(source, ShardsSource)
        return index_in_place(source, rule, how, options.workers)
    packer = Packer(source, rule, options.dest, options.gzip, options.strict, embed)
    try:
        return pack(packer, how, options.shard_samples, options.workers)
    except OSError as error:
        where = error.filename or options.dest
        raise RunError(f"{where}: {error.strerror or error}; fix it and run the same command to continue") from error


def _open_source(options: argparse.Namespace, scheme: str, path: str) -> "Source":
    from ganrun.preparation import folder, hub, pairs, patches, published_datasets, shards, stacked, svg_sets, video

    names, limit, default, download = options.names, options.limit, pairs.DEFAULT_NAMES, options.download
    sought = (options.fields and Path(expand_user(options.fields)), limit, bool(options.embed))
    opened: dict[str, Callable[[], Source]] = {
        "folder": lambda: patches.with_options(folder.open_folder(path, *sought), options),
        "pairs": lambda: pairs.open_pairs(path, names or default, *sought),
        "side-by-side": lambda: pairs.open_side_by_side(path, names or default, *sought),
        "iconify": lambda: svg_sets.open_svg_sets(path, names or default[: path.count(",") + 1], options.size),
        "video": lambda: video.open_videos(path, rule_of(options), options.size, options.filter, options.workers),
        "hub": lambda: hub.open_hub(path, limit, download),
        "shards": lambda: shards.open_shards(path, copied=options.dest is not None),
        "fashion-mnist": lambda: published_datasets.open_fashion_mnist(path, limit, download),
        "cifar10": lambda: published_datasets.open_cifar10(path, limit, download),
        "celeba": lambda: published_datasets.open_celeba(path, limit, download),
        "stacked": lambda: stacked.open_stacked(path, options.samples or DEFAULT_SAMPLES, options.seed or 0, download),
    }
    return opened[scheme]()


def _how(options: argparse.Namespace, source: "Source", rule: "Rule") -> dict[str, Any]:
    """Return the options that determine the content. The index records them, to recognise the same data set."""
    from ganrun.preparation.patches import PatchSource

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
        **(source.made if isinstance(source, PatchSource) else {}),
    }


if __name__ == "__main__":
    sys.exit(main())
