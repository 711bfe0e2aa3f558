"""Measures this machine, with what a user would pick instead beside it, in turn in one process."""

import argparse
import json
import os
import sys
from importlib import import_module

from ganrun import config as configs
from ganrun import door
from ganrun.errors import UserError

EXAMPLES = """examples:
  ganrun bench step configs/quickstart.yaml             images/s of a round, data in memory
  ganrun bench step configs/quickstart.yaml --json cluster.cpus_per_worker=1
  ganrun bench fid configs/quickstart.yaml              distances/s, beside torch-fidelity

Only ratios mean something: both sides run in turn, and the machine may be shared."""

WHAT = (
    "step: the round of a game against a textbook DCGAN step",
    "fid: the Fréchet distance and its features against torch-fidelity",
)


def main(arguments: list[str] | None = None) -> int:
    """The door; returns the exit code."""
    parser = door.parser("bench", __doc__, EXAMPLES)
    parser.add_argument("what", choices=("step", "fid"), help="; ".join(WHAT))
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a run")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="lay a value over the file's")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    options = parser.parse_intermixed_args(arguments)
    return door.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    config = configs.load(options.config, options.overrides)
    if config.cluster.gpus_per_worker:
        raise UserError(f"cluster.gpus_per_worker: 1, but bench {options.what} measures the CPU; set it to 0")
    # Before numpy is loaded, whose matrix products then have as many threads as torch's.
    os.environ["OPENBLAS_NUM_THREADS"] = str(max(1, int(config.cluster.cpus_per_worker)))
    bench = import_module(f"ganrun.{options.what}_bench")
    result = bench.measure(config)
    print(json.dumps(result) if options.json else bench.describe(result))
    return door.OK


if __name__ == "__main__":
    sys.exit(main())
