"""Measure this machine, beside what a user would use instead. Both sides run in turn."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module

from ganrun.cli import command, preflight
from ganrun.cli.completion import add_config
from ganrun.config.load import load_config
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.errors import UserError

MEASURES = {
    "step": "the round of a game, data in memory, and the whole loop, against a textbook DCGAN step; on a GPU if there "
    "is one",
    "data": "samples/s from data.shards to a tensor, stage by stage, against plain webdataset",
    "checkpoint": "how long a checkpoint to run.storage holds up the round, against torch.save and a put",
    "scale": "what a run would ask of network, storage and sidecar on 8 to 1,024 GPUs, and what gives out first",
    "job": "the whole job through Ray, against the round alone",
    "startup": "from the command to the first round, against a bare TorchTrainer",
    "fid": "the Fréchet distance and its features, against torch-fidelity",
}
ON_CPU = ("checkpoint", "startup", "fid")
"""Measurements of the CPU alone."""
EXAMPLES = """examples:
  ganrun bench step configs/quickstart.yaml             images/s of a round, data in memory
  ganrun bench step configs/dcgan_64.yaml objective.diffaugment=[] --plot step.png
  ganrun bench data configs/dcgan_64.yaml data.shards=s3://bucket/images64 data.fields.label=label
  ganrun bench checkpoint configs/dcgan_64.yaml run.storage=s3://bucket/runs --json
  ganrun bench scale configs/dcgan_64.yaml              what 1,024 GPUs would ask of network and storage
  ganrun bench job configs/dcgan_64.yaml data.shards=s3://bucket/images64 run.storage=s3://bucket/runs
  ganrun bench startup configs/quickstart.yaml          seconds to the first round
  ganrun bench fid configs/quickstart.yaml              distances/s, beside torch-fidelity

Compare ratios only: the machine may be shared, but both sides run in turn."""


def main(
    arguments: list[str] | None = None, measures: Mapping[str, str] = MEASURES, package: str = "ganrun.benchmarks"
) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: arguments of the command; None: `sys.argv`.
        measures: names of the measurements, with a line of help for each.
        package: package in which each is a module with `measure` and `describe`.
    """
    parser = command.parser("bench", __doc__, EXAMPLES)
    listed = "; ".join(f"{what}: {meaning}" for what, meaning in measures.items())
    parser.add_argument("what", choices=measures, help=listed)
    add_config(parser, "YAML file of a run, or a name of ganrun configs")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    parser.add_argument("--plot", metavar="FILE", help="write the rates of all sides as a PNG, too")
    options = command.parse(parser, arguments, intermixed=True)
    return command.run(options, lambda options: _main(options, package))


def _main(options: argparse.Namespace, package: str) -> int:
    config = load_config(options.config, options.overrides)
    if config.cluster.gpus_per_worker and options.what in ON_CPU:
        raise UserError(f"cluster.gpus_per_worker: 1, but bench {options.what} measures the CPU; set it to 0")
    # Before numpy is imported: its matrix products use as many threads as torch's.
    os.environ["OPENBLAS_NUM_THREADS"] = str(max(1, int(config.cluster.cpus_per_worker)))
    bench, spec = import_module(f"{package}.{options.what}"), resolve(config)
    result = bench.measure(spec)
    if options.what == "step":
        result["job_over_step"] = _job_over_step(spec)
    if options.plot:
        import_module("ganrun.benchmarks.plot").draw(result, options.plot)
    print(json.dumps(result) if options.json else bench.describe(result))
    if options.what == "step" and not options.json and result["job_over_step"]:
        print(f"the whole job through Ray: {result['job_over_step']:.3f} of its round")
    return command.OK


def _job_over_step(spec: RunSpec) -> float | None:
    """Return the rate of the whole job through Ray over that of its round; None without data."""
    job = import_module("ganrun.benchmarks.job")
    try:
        preflight.check(spec)
        return float(job.measure(spec)["job_over_step"])
    except UserError as error:
        print(f"job_over_step is not measured: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
