"""Scores a run or a checkpoint: its EMA generator against data."""

import argparse
import json
import sys
from typing import Any, get_args

from ganrun.cli import command
from ganrun.config.field_types import Metric
from ganrun.telemetry.series import DISTANCES, FRECHET_DISTANCE

EXAMPLES = """examples:
  ganrun evaluate runs/quickstart                                   all scores, as in training
  ganrun evaluate runs/quickstart --metrics kid,precision,recall    these, and the Fréchet distance
  ganrun evaluate runs/gaussians-25 --samples 10000                 of points: the modes that they cover
  ganrun evaluate runs/quickstart --samples 50000 --extractor inception-v3-compat --json     FID
  ganrun evaluate runs/quickstart/checkpoints/000000150016-0001 --data data/held-out

Scores compare only if extractor, resize filter and number of samples are the same."""
ALIASES = ("fid", FRECHET_DISTANCE.key)
"""What the Fréchet distance may be asked for by, though it is always measured."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""
    parser = command.parser("evaluate", __doc__, EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run (its newest checkpoint), or of a checkpoint")
    add("--metrics", type=_metrics, metavar="A,B,...", help=f"of fid, {', '.join(get_args(Metric))}; default: all")
    add("--samples", type=_samples, metavar="N", help="generated images, and as many real ones; default: the run's")
    add("--seed", type=int, metavar="S", help="of the noise; default: the run's")
    add("--extractor", metavar="NAME_OR_URI", help="efficientnet-lite0, inception-v3-compat, or a TorchScript .pt file")
    add("--extractor-weights", metavar="URI", help="of inception-v3-compat; default: downloaded")
    add("--data", metavar="URI", help="real images to compare with; default: the run's")
    add(
        "--classifier-accuracy",
        action="store_true",
        help="of a classifier of generated images on real ones",
    )
    add("--json", action="store_true", help="one JSON object on stdout and nothing else")
    options = parser.parse_args(arguments)
    return command.run(lambda: _main(options))


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in (*ALIASES, *get_args(Metric)):
            raise argparse.ArgumentTypeError(f"no metric {name!r}; there are fid, {', '.join(get_args(Metric))}")
    return tuple(name for name in names if name not in ALIASES)


def _samples(text: str) -> int:
    samples = int(text)
    if samples < 2:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: at least 2")
    return samples


def _main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ganrun.inference.scoring import ScoreRequest, score_checkpoint

    request = {name: value for name, value in vars(options).items() if name not in ("run", "json")}
    with tqdm(unit=" images", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def seen(count: int, total: int) -> None:
            if bar.disable and bar.total is None:  # nobody waits without a word
                print(f"looking at {total:,} images, or fewer where real ones were seen before ...", file=sys.stderr)
            bar.total = total
            bar.update(count)

        result = score_checkpoint(options.run, ScoreRequest(**request), seen)
    print(json.dumps(result) if options.json else _describe(result))
    return command.OK


def _describe(result: dict[str, Any]) -> str:
    """A line a score, and where they come from."""
    value = next(name for name in (distance.key for distance in DISTANCES) if name in result)
    facts = ("images", "samples", "seed", "name", "extractor", "extractor_sha256", "resize", "fid", value)
    rows = {result["name"]: result[value]}
    rows |= {name: value for name, value in result.items() if name not in facts}
    width = max(map(len, rows))
    lines = [f"{name:{width}}  {'not to be had' if value is None else f'{value:.4g}'}" for name, value in rows.items()]
    told = f"checkpoint at {result['images']:,} images; {result['samples']:,} samples of seed {result['seed']}"
    if result["extractor"]:
        told += f"; resized {result['resize']}; {result['extractor']} {result['extractor_sha256'][:12]}"
    return "\n".join([*lines, told])


if __name__ == "__main__":
    sys.exit(main())
