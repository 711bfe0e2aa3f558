"""Draws images from the EMA generator of a run or a checkpoint."""

import argparse
import sys
from pathlib import Path

from ganrun.cli import command
from ganrun.errors import UserError

EXAMPLES = """examples:
  ganrun sample runs/quickstart --out grid.png --grid             64 images in one picture
  ganrun sample runs/quickstart --out pictures --count 1000       one PNG each, in a folder
  ganrun sample runs/quickstart --out walk.png --interpolate      from noise to noise, a walk in each row
  ganrun sample runs/digits --out threes.png --label 3            of one class; without it, a class in each column
  ganrun sample runs/quickstart/checkpoints/000000150016-0001 --out old.png --grid --seed 7

The newest checkpoint of a run is taken, or the one given. The same seed gives the same images."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""
    parser = command.parser("sample", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    parser.add_argument(
        "--out", required=True, metavar="FILE_OR_DIR", help="a .png file, or a folder for single images"
    )
    parser.add_argument("--count", type=_count, default=64, metavar="N", help="images; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise; default %(default)s")
    parser.add_argument("--label", type=int, metavar="K", help="of all images; default: every class in turn")
    parser.add_argument("--grid", action="store_true", help="one picture of all (implied where --out is a .png file)")
    parser.add_argument("--interpolate", action="store_true", help="rows of 8 images, each from one noise to another")
    options = parser.parse_args(arguments)
    return command.run(lambda: _main(options))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: at least 1")
    return count


def _main(options: argparse.Namespace) -> int:
    out = Path(options.out)
    single = out.suffix.lower() == ".png"
    if out.suffix and not single:
        raise UserError(f"--out {out}: pictures are .png; name such a file, or a folder for single images")
    if (options.grid or options.interpolate) and not single:
        raise UserError(f"--out {out}: a grid is one picture; name a .png file")
    from ganrun.inference.sampling import Sampler, draw_grid, draw_singles

    sampler = Sampler(options.run, options.label)
    if single:
        draw_grid(sampler, out, options.count, options.seed, options.interpolate)
    else:
        draw_singles(sampler, out, options.count, options.seed)
    print(out)
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
