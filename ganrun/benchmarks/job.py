"""Speed of the whole job beside its rounds alone: the cost of Ray, stream, telemetry, samples and checkpoints.

The job is a real `ganrun train` of the config, from data.shards to a temporary folder in run.storage, with a sidecar.
Its rate is from its own records, from the second tick to the last, without the start. Ticks, samples and checkpoints
come every few seconds, more often than usual. Scores are off: their cost depends on the config, and `ganrun runs show`
reports it for a run.
"""

import os
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from ganrun.benchmarks.comparison import rate, ratio, result
from ganrun.benchmarks.rounds import changed, device_of, rounds, use_threads, waiting
from ganrun.benchmarks.sidecar_process import SidecarProcess
from ganrun.config.run_spec import RunSpec
from ganrun.errors import RunError, UserError
from ganrun.run_folder.curve import Line, read_curve
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry.protocol import VARIABLE
from ganrun.telemetry.series import IMAGES_PER_SECOND, SECONDS
from ganrun.worker.gpus import use_gpu

REPEATS, JOB_SECONDS, ROUND_SECONDS = 5, 40.0, 3.0
TICKS, CHECKPOINTS = 4, 2
"""Duration of each job."""


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure images/s of the job and of rounds alone, in turn, on the same slots and threads, or on a GPU.

    Raises:
        UserError: the config has several workers, but rounds alone run in one process; or no GPU is here.
        RunError: the job failed.
    """
    if spec.cluster.workers != 1:
        raise UserError(f"cluster.workers: {spec.cluster.workers}, but bench job compares one; set it to 1")
    use_threads(spec.cluster)
    device = device_of(spec.cluster)
    if device.type == "cuda":
        use_gpu(device)
    size, wait, (_, step) = spec.data.batch_size, waiting(device), rounds(spec, Slots(spec.slots), None, device)
    rate(step, size, ROUND_SECONDS, wait)  # Rounds on a GPU are captured.
    job, place = _job(spec, rate(step, size, ROUND_SECONDS, wait)), f"{spec.run.storage}/.bench-{uuid.uuid4().hex[:12]}"
    ours, alone, spent = list[float](), list[float](), Counter[str]()
    try:
        with SidecarProcess() as sidecar, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(job.to_yaml())
            for repeat in range(REPEATS):
                before = rate(step, size, ROUND_SECONDS, wait)
                ticks = _ran(file, place, f"repeat{repeat}", sidecar.address.url)
                alone.append((before + rate(step, size, ROUND_SECONDS, wait)) / 2)
                ours.append((ticks[-1]["images"] - ticks[0]["images"]) / (ticks[-1]["time"] - ticks[0]["time"]))
                for tick in ticks[1:]:
                    spent.update({name: value for name, value in tick.items() if name.startswith(SECONDS.prefix)})
    finally:
        open_storage(spec.run.storage).delete(place.rpartition("/")[2])
    share, seconds = ratio(ours, alone), sum(spent.values())
    shares = {name.removeprefix(SECONDS.prefix): value / seconds for name, value in spent.items()}
    peer = "the round alone, data in memory"
    return result("job", peer, "images/s", ours, alone, share, job_over_step=share, shares=shares)


def describe(found: dict[str, Any]) -> str:
    """Describe the result in words."""
    shares = ", ".join(f"{part} {share:.1%}" for part, share in found["shares"].items())
    return (
        f"the job: {found['ours']:,.0f} images/s; {found['peer']}: {found['theirs']:,.0f} images/s\n"
        f"ratio {found['ratio']:.3f} (median of {found['repeats']} repeats in turn, spread {found['spread']:.0%})\n"
        f"the job's time: {shares}"
    )


def _job(spec: RunSpec, images_per_second: float) -> RunSpec:
    """Return the run with images for about `JOB_SECONDS`, without scores."""
    size = spec.data.batch_size
    tick = max(1, round(images_per_second * JOB_SECONDS / TICKS / size)) * size
    spec = changed(spec, train__total_images=tick * TICKS, train__tick_images=tick, evaluate__every_images=0)
    return changed(spec, checkpoint__every_images=tick * TICKS // CHECKPOINTS, run__start_from=None)


def _ran(file: Path, place: str, name: str, sidecar: str) -> list[Line]:
    """Run the config and return its ticks from the second on."""
    command = [sys.executable, "-m", "ganrun.train", str(file), f"run.storage={place}", f"run.name={name}"]
    done = subprocess.run(command, env=os.environ | {VARIABLE: sidecar}, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"ganrun train left with {done.returncode}: {done.stderr.strip()[-500:]}")
    curve, _ = read_curve(open_storage(f"{place}/{name}"))
    return [line for line in curve if IMAGES_PER_SECOND.key in line][1:]
