"""Score a run, a checkpoint or a folder of pictures against real images."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ganrun.cli import command
from ganrun.config.registry import SCORES
from ganrun.errors import UserError, escaped
from ganrun.storage import expand_user
from ganrun.telemetry.baselines import AT, split
from ganrun.telemetry.series import DISTANCES, FRECHET_DISTANCE

EXAMPLES = """examples:
  ganrun evaluate runs/quickstart                                   all metrics, with the settings of training
  ganrun evaluate runs/quickstart --metrics kid,precision,recall    Fréchet distance, KID, precision and recall
  ganrun evaluate runs/gaussians-25 --samples 10000                 mode coverage of generated points
  ganrun evaluate runs/pix2pix-fluent --metrics l1,lpips           beside the input, the mean and the nearest picture
  ganrun evaluate runs/text-to-image-fluent --metrics matching,colour_words --matcher matcher.safetensors
  ganrun evaluate runs/quickstart --samples 50000 --extractor inception-v3-compat --json     FID
  ganrun evaluate runs/quickstart/checkpoints/000000150016-0001 --data data/held-out
  ganrun evaluate --images pictures --data data/held-out            a folder of pictures, from any program
  ganrun evaluate runs/quickstart --metrics memorisation --nearest nearest.png

Scores are comparable only if extractor, resize filter and number of samples are the same."""
ALIASES = ("fid", FRECHET_DISTANCE.key)
"""Accepted names of the Fréchet distance, which is always measured."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("evaluate", __doc__, EXAMPLES)
    add = parser.add_argument
    add(
        "run",
        metavar="RUN_OR_CHECKPOINT",
        nargs="?",
        help="folder of a run (its newest checkpoint), or of a checkpoint; with --images, whose data to compare with",
    )
    add("--images", metavar="FOLDER", help="score the pictures of a folder, in place of a run's")
    add("--metrics", type=_metrics, metavar="A,B,...", help=f"fid, {', '.join(SCORES)} (default: all)")
    add(
        "--samples", type=_samples, metavar="N", help="number of generated images and of real ones (default: the run's)"
    )
    add("--seed", type=int, metavar="S", help="seed of the noise (default: run.seed)")
    add("--extractor", metavar="NAME_OR_URI", help="efficientnet-lite0, inception-v3-compat, or a TorchScript .pt file")
    add("--extractor-weights", metavar="URI", help="weights of inception-v3-compat (default: download)")
    add("--matcher", metavar="FILE", help="dual encoder of ganrun matcher, for the score matching (default: the run's)")
    add("--data", metavar="URI", help="real images to compare with (default: those of the run's own scores)")
    add(
        "--classifier-accuracy",
        action="store_true",
        help="train a classifier on generated images and report its accuracy on real ones, 0 to 1",
    )
    add(
        "--nearest",
        metavar="FILE",
        help="PNG of generated images beside the training images nearest to them, and of held-out ones beside theirs",
    )
    add("--json", action="store_true", help="one JSON object on stdout and nothing else")
    return command.run(command.parse(parser, arguments), _main)


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return tuple(name for name in names if name not in ALIASES)


def _samples(text: str) -> int:
    samples = int(text)
    if samples < 2:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give at least 2")
    return samples


def _main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    if not options.run and not options.images:
        raise UserError("nothing to score: name a run, a checkpoint, or --images FOLDER")
    if options.nearest and not options.nearest.lower().endswith(".png"):
        raise UserError(f"--nearest {options.nearest}: unsupported ending; give a .png file")
    from ganrun.inference.scoring import ScoreRequest, score_checkpoint, score_pictures

    left_out: list[str] = []
    request = ScoreRequest(**{field.name: getattr(options, field.name) for field in fields(ScoreRequest)})
    with tqdm(unit=" images", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def seen(count: int, total: int) -> None:
            if bar.disable and bar.total is None:  # no terminal, so no bar: say how much there is to wait for
                print(f"scoring up to {total:,} images (statistics of real ones may be cached) ...", file=sys.stderr)
            bar.total = total
            bar.update(count)

        if options.images:
            from ganrun.preparation.convert_image import decode

            paths, left_out = _pictures(options.images)
            result = score_pictures(options.images, paths, decode, options.run, request, seen)
        else:
            result = score_checkpoint(options.run, request, seen)
    for line in left_out:
        print(f"left out: {escaped(line)}", file=sys.stderr)
    print(json.dumps(result) if options.json else _describe(result, options.images))
    return command.OK


def _pictures(folder: str) -> tuple[list[Path], list[str]]:
    """Return the pictures below a folder, those that `prepare` and `sample` find, and a line for each that is left out.

    Raises:
        UserError: no such folder, or it cannot be listed.
    """
    from ganrun.preparation.find_images import find_images

    place = Path(expand_user(folder))
    if not place.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    found = find_images(str(place))
    left_out = [*(f"{place}/{name}: {why}" for name, why in found.unread.items()), *found.left_out()]
    return [place / name for name in found.images], left_out


def _describe(result: dict[str, Any], folder: str | None) -> str:
    """Return a line for each score, and their provenance."""
    value = next(name for name in (distance.key for distance in DISTANCES) if name in result)
    facts = ("images", "samples", "seed", "name", "extractor", "extractor_sha256", "resize", "held_out", "fid", value)
    rows = {result["name"]: result[value]}
    rows |= {name: value for name, value in result.items() if name not in facts}
    lines = _table(rows, {result["name"]: value})
    of = f"pictures of {folder}" if folder else f"checkpoint at {result['images']:,} images"
    source = f"{of}; {result['samples']:,} samples of seed {result['seed']}"
    if result["extractor"]:
        source += f"; resized {result['resize']}; {result['extractor']} {result['extractor_sha256'][:12]}"
    if result["held_out"]:
        source += f"; real images held out by {result['held_out']}"
    return "\n".join([*lines, source])


def _table(rows: dict[str, float | None], columns: dict[str, str]) -> list[str]:
    """Return a line for each score, with its baselines beside it.

    Args:
        rows: values by name; those of baselines as SCORE@BASELINE.
        columns: names that a score has in front of @, where it is shown under another.
    """
    baselines = list(dict.fromkeys(baseline for _, baseline in map(split, rows) if baseline))
    # A deviation that is unknown says nothing.
    own = [name for name, value in rows.items() if not (split(name)[1] or (value is None and "_deviation" in name))]
    width = max(map(len, own))

    def shown(name: str) -> str:
        value = rows.get(name, "")
        return value if isinstance(value, str) else "not finite" if value is None else f"{value:.4g}"

    cells = [[shown(name), *(shown(f"{columns.get(name, name)}{AT}{each}") for each in baselines)] for name in own]
    if not baselines:
        return [f"{name:{width}}  {cell}" for name, (cell,) in zip(own, cells, strict=True)]
    heads = ["this run", *baselines]
    table = zip(["", *own], [heads, *cells], strict=True)
    return ["  ".join([f"{name:{width}}", *(f"{cell:>10}" for cell in row)]).rstrip() for name, row in table]


if __name__ == "__main__":
    sys.exit(main())
