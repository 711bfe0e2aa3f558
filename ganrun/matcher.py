"""Train a dual encoder of pictures and sentences on the training pairs of a config, for the score `matching`."""

import argparse
import sys
from pathlib import Path

from ganrun.cli import command
from ganrun.errors import UserError
from ganrun.storage import expand_user

EXAMPLES = """examples:
  ganrun matcher configs/text_to_image_fluent.yaml --out matcher.safetensors
  ganrun evaluate runs/text-to-image-fluent --metrics matching,colour_words --matcher matcher.safetensors

It never sees held-out pairs; its accuracy on their real pictures is printed, and stands beside each score."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("matcher", __doc__, EXAMPLES)
    parser.add_argument("config", metavar="CONFIG", help="YAML of a run with objective.condition: text")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="lay a value over the file's")
    parser.add_argument("--out", required=True, metavar="FILE", help="file that ends in .safetensors")
    return command.run(command.parse(parser, arguments, intermixed=True), _main)


def _main(options: argparse.Namespace) -> int:
    out = Path(expand_user(options.out))
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: unsupported ending; use .safetensors")
    from tqdm import tqdm

    from ganrun.config.load import load_config
    from ganrun.inference.matching import make_matcher
    from ganrun.inference.sampling import write_file

    loaded = load_config(options.config, options.overrides)
    with tqdm(unit=" pictures", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def seen(count: int) -> None:
            bar.update(count)

        data, facts = make_matcher(loaded, seen)
    write_file(out, data)
    print(
        f"trained on {facts['pairs']:,} pairs; of {facts['tested_on']:,} held-out real pictures it picks the right one "
        f"of {facts['among']} sentences for {facts['accuracy']:.1%}",
        file=sys.stderr,
    )
    print(out)
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
