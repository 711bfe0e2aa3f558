"""Time from the command to the end of the first round, beside a bare TorchTrainer's first step.

Both start a local Ray and the same number of workers, for the same networks. ganrun also checks config and data, takes
the lease, begins an attempt, opens the extractor, draws the first picture and reads real images.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ganrun.benchmarks.comparison import result
from ganrun.benchmarks.rounds import changed
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import ClusterConfig, DataConfig, ModelConfig
from ganrun.errors import RunError
from ganrun.telemetry.protocol import OFF, VARIABLE

REPEATS = 5
PEER = "a bare TorchTrainer's first step"


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure seconds to the first round and to the bare step, in turn, and of `--help` and of a faulty config."""
    ours, theirs, helps, faults = list[float](), list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(_one_round(spec, folder).to_yaml())
        _first_round(file, "warm-up")
        for repeat in range(REPEATS):
            ours.append(_first_round(file, f"repeat{repeat}"))
            theirs.append(_first_bare_step(spec.model, spec.data, spec.cluster))
            helps.append(_timed(["--help"], 0))
            faults.append(_timed([str(file), "train.tik_images=1"], 2))
    starts, bare = ([60 / seconds for seconds in side] for side in (ours, theirs))
    over = statistics.median(mine / peer for mine, peer in zip(ours, theirs, strict=True))
    return result(
        "startup",
        PEER,
        "starts a minute",
        starts,
        bare,
        None,
        first_step_over_bare=over,
        help_seconds=statistics.median(helps),
        fault_seconds=statistics.median(faults),
    )


def describe(found: dict[str, Any]) -> str:
    """Describe the result in words."""
    return (
        f"from the command to the end of the first round: {60 / found['ours']:.1f} s; {found['peer']}: "
        f"{60 / found['theirs']:.1f} s\n"
        f"{found['first_step_over_bare']:.2f} of it (median of {found['repeats']} pairs in turn, spread "
        f"{found['spread']:.0%})\n"
        f"--help takes {found['help_seconds']:.2f} s, to find a wrong key {found['fault_seconds']:.2f} s"
    )


def _one_round(spec: RunSpec, folder: str) -> RunSpec:
    """Return a run of one round that scores as few images as possible."""
    spec = changed(spec, run__storage=folder, run__start_from=None, train__total_images=spec.data.batch_size)
    return changed(spec, evaluate__samples=2, evaluate__metrics=())


def _first_round(file: Path, name: str) -> float:
    """Return seconds from the command to the tick of the first round."""
    begun = time.time()
    _run(["ganrun.train", str(file), f"run.name={name}"])
    (metrics,) = (file.parent / name / "metrics").glob("*.jsonl")
    return float(json.loads(metrics.read_text().splitlines()[0])["time"]) - begun


def _first_bare_step(model: ModelConfig, data: DataConfig, cluster: ClusterConfig) -> float:
    """Return seconds from the command to the end of the bare step."""
    cpus = max(os.cpu_count() or 1, int(cluster.most_workers * cluster.cpus_per_worker))
    job: dict[str, Any] = {"model": model.model_dump(mode="json"), "data": data.model_dump(mode="json")}
    job |= {"workers": cluster.most_workers, "cpus_per_worker": cluster.cpus_per_worker, "num_cpus": cpus}
    begun = time.time()
    return float(_run(["ganrun.ray_backend.bare_trainer", json.dumps(job)]).split()[-1]) - begun


def _timed(arguments: list[str], code: int) -> float:
    """Return the seconds of `ganrun train` with these arguments."""
    begun = time.perf_counter()
    _run(["ganrun.train", *arguments], code)
    return time.perf_counter() - begun


def _run(arguments: list[str], code: int = 0) -> str:
    """Run a module and return its stdout.

    Raises:
        RunError: it exited with another code than expected.
    """
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {VARIABLE: OFF, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != code:
        raise RunError(f"{' '.join(arguments[:2])} left with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
