"""Draw images from the EMA generator of a run or a checkpoint."""

import argparse
import sys
from pathlib import Path

from ganrun.cli import command
from ganrun.errors import UserError
from ganrun.storage import expand_user

EXAMPLES = """examples:
  ganrun sample runs/quickstart --out grid.png --grid             64 images in one PNG
  ganrun sample runs/quickstart --out pictures --count 1000       a folder with 1,000 PNGs
  ganrun sample runs/quickstart --out walk.png --interpolate      8 interpolations of 8 images, one per row
  ganrun sample runs/digits --out threes.png --label 3            one class; without --label one class per column
  ganrun sample runs/quickstart/checkpoints/000000150016-0001 --out old.png --grid --seed 7

RUN stands for its newest checkpoint. The same seed gives the same images."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("sample", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    parser.add_argument(
        "--out", required=True, metavar="FILE_OR_DIR", help="a .png file for a grid, or a folder for single images"
    )
    parser.add_argument("--count", type=_count, default=64, metavar="N", help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default: %(default)s)")
    parser.add_argument("--label", type=int, metavar="K", help="class of all images (default: all classes in turn)")
    parser.add_argument("--grid", action="store_true", help="all images in one PNG (implied if --out is a .png file)")
    parser.add_argument("--interpolate", action="store_true", help="rows of 8 images between two random z (slerp)")
    options = parser.parse_args(arguments)
    return command.run(lambda: _main(options))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give at least 1")
    return count


def _main(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    single = out.suffix.lower() == ".png"
    if out.suffix and not single:
        raise UserError(f"--out {out}: unsupported ending; give a .png file, or a folder for single images")
    if (options.grid or options.interpolate) and not single:
        raise UserError(f"--out {out}: --grid and --interpolate write one picture; give a .png file")
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
