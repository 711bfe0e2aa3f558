"""One visit to a GPU machine: a job through Ray Train that is disturbed, resumed and scored, and the rates of R3GAN.

    python cluster/visit.py OUT           on a machine with a GPU
    python cluster/visit.py OUT --small   on a CPU, to try the script itself

Two runs are left alone, to learn how much two runs of this machine differ. A third loses its worker to `kill -9`, which
Ray restarts, is stopped by SIGTERM, and is resumed by the same command. Its weights must be those of the others. Then
rounds of configs/r3gan_64.yaml are played at the published width: the first one, eager and captured ones, and their
memory beside its forecast. OUT gets the logs, the runs and `visit.jsonl`, a line for each result. Exits with 0 if
nothing differs or fails.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ganrun.benchmarks.comparison import rate
from ganrun.benchmarks.memory import forecast
from ganrun.benchmarks.rounds import changed, device_of, rounds, waiting
from ganrun.config.load import load_config
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.slots import Slots
from ganrun.worker.gpus import use_gpu

CONFIGS = Path(__file__).parent.parent / "configs"
POLL_SECONDS, LONGEST_SECONDS, ROUND_SECONDS = 0.2, 1_200.0, 5.0
GIB = 2**30
SMALL_JOB = ("model.width=8", "data.batch_size=16", "train.total_images=6_400", "train.tick_images=1_600")
SMALL_NETWORK = ("model.width=16", "data.batch_size=8", "train.precision=float32")


class Visit:
    """Runs of one visit, in a folder.

    Args:
        out: the folder; created.
        small: on a CPU, with small networks.
    """

    def __init__(self, out: Path, small: bool) -> None:
        self.out, self.small, self.failed = out, small, False
        out.mkdir(parents=True, exist_ok=True)
        self.total = 6_400 if small else 150_000

    def report(self, what: str, **found: Any) -> None:
        """Print a result and add it to visit.jsonl; `ok` is False if something differs."""
        self.failed = self.failed or found.get("ok") is False
        line = json.dumps({"what": what, **found})
        print(line, flush=True)
        with (self.out / "visit.jsonl").open("a") as file:
            file.write(line + "\n")

    def begin(self, name: str) -> subprocess.Popen[bytes]:
        """Start, or resume, `ganrun train` of the quickstart as the run `name`."""
        changes = [f"run.storage={self.out / 'runs'}", f"run.name={name}", "evaluate.every_images=0"]
        changes += [f"checkpoint.every_images={self.total // 8}", f"train.total_images={self.total}"]
        changes += SMALL_JOB if self.small else ["cluster.gpus_per_worker=1"]
        with (self.out / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "ganrun.train", str(CONFIGS / "quickstart.yaml"), *changes]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def images(self, name: str) -> int:
        """Return the images of a run's newest checkpoint."""
        pointer = self.out / "runs" / name / "latest.json"
        return int(json.loads(pointer.read_text())["images"]) if pointer.exists() else 0

    def wait_for(self, name: str, process: subprocess.Popen[bytes], images: int) -> None:
        """Wait until a run has a checkpoint of so many images.

        Raises:
            RuntimeError: it ended before.
        """
        deadline = time.monotonic() + LONGEST_SECONDS
        while self.images(name) < images:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not come to {images} images: see {self.out / name}.log")
            time.sleep(POLL_SECONDS)

    def finish(self, name: str, process: subprocess.Popen[bytes], code: int = 0) -> None:
        """Wait for the end of a run's command, with this exit code."""
        if (found := process.wait(LONGEST_SECONDS)) != code:
            raise RuntimeError(f"{name} left with {found}, not {code}: see {self.out / name}.log")

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Return all tensors of a run's newest checkpoint but those of metrics."""
        run = self.out / "runs" / name
        folder = run / "checkpoints" / json.loads((run / "latest.json").read_text())["checkpoint"]
        files = [file for file in sorted(folder.glob("*.safetensors")) if file.stem != "recorder"]
        return {f"{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}

    def score(self, name: str) -> dict[str, Any]:
        """Return the scores of a run, as `ganrun evaluate --json` prints them, with the seconds that it took."""
        samples = "200" if self.small else "2000"
        command = [sys.executable, "-m", "ganrun.evaluate", str(self.out / "runs" / name), "--json"]
        begun = time.monotonic()
        done = subprocess.run([*command, "--samples", samples], capture_output=True, text=True, check=True)
        return {**json.loads(done.stdout), "seconds": time.monotonic() - begun}


def main() -> int:
    """Do all of it. Return 1 if something differs or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of results; a new one")
    parser.add_argument("--small", action="store_true", help="small networks on a CPU, to try this script")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        parser.error("this machine has no GPU; --small tries the script on the CPU")
    visit = Visit(options.out.absolute(), options.small)
    name = "CPU" if options.small else torch.cuda.get_device_name(0)
    visit.report("machine", torch=torch.__version__, device=name, gpus=torch.cuda.device_count())
    for step in (job, network):
        try:
            step(visit)
        except Exception as error:  # What comes after is still wanted.
            visit.report(step.__name__, ok=False, error=f"{type(error).__name__}: {error}")
    return int(visit.failed)


def job(visit: Visit) -> None:
    """Compare a disturbed run with two that were left alone."""
    for name in ("first", "second"):
        begun = time.monotonic()
        visit.finish(name, visit.begin(name))
        visit.report(f"run {name}", images=visit.images(name), seconds=time.monotonic() - begun)
    disturb(visit, "disturbed")
    alone = difference(visit.weights("first"), visit.weights("second"))
    found = difference(visit.weights("disturbed"), visit.weights("first"))
    # Kernels of a GPU that add in any order may make two runs differ.
    visit.report("weights", two_runs=alone, disturbed=found, ok=found <= 2 * alone)
    for name in ("first", "disturbed"):
        visit.report(f"score of {name}", **visit.score(name))


def disturb(visit: Visit, name: str) -> None:
    """Train a run whose worker is killed, and whose command is then stopped and given again."""
    process = visit.begin(name)
    visit.wait_for(name, process, visit.total // 4)
    victim = next(workers_below(process.pid))
    os.kill(victim, signal.SIGKILL)
    killed = visit.images(name)
    visit.wait_for(name, process, visit.total // 2)
    process.send_signal(signal.SIGTERM)
    visit.finish(name, process, 130)
    stopped = visit.images(name)
    visit.finish(name, visit.begin(name))
    attempts = len(list((visit.out / "runs" / name / "events").glob("*.jsonl")))  # Begun, restarted, resumed.
    ended = visit.images(name)
    visit.report(
        "disturbed", killed_after=killed, stopped_at=stopped, ended_at=ended, attempts=attempts, ok=attempts == 3
    )


def workers_below(pid: int) -> Iterator[int]:
    """Yield the training workers of Ray among the processes that a process has started, and those that they have."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            if b"RayTrainWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield child
            yield from workers_below(child)


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any number, relative to the largest number of its tensor."""
    if one.keys() != other.keys():
        raise ValueError(f"checkpoints differ in {sorted(one.keys() ^ other.keys())[:3]}")
    pairs = [(tensor.double(), other[name].double()) for name, tensor in one.items() if tensor.numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def network(visit: Visit) -> None:
    """Measure rounds of R3GAN: the first one, eager and captured ones, and their memory."""
    changes = SMALL_NETWORK if visit.small else ()
    config = load_config(CONFIGS / "r3gan_64.yaml", ["cluster.workers=1", "data.slots=8", *changes])
    if visit.small:
        config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"gpus_per_worker": 0})})
    spec = resolve(config)
    for capture in ("off", "on"):
        play(visit, changed(spec, train__capture=capture), device_of(spec.cluster))


def play(visit: Visit, spec: RunSpec, device: torch.device) -> None:
    """Play rounds of one kind, and report their rate and memory."""
    if device.type == "cuda":
        use_gpu(device)
    lines, wait = list[str](), waiting(device)
    begun = time.monotonic()
    _, step = rounds(spec, Slots(spec.slots), None, device, lines.append)
    built = time.monotonic()
    step()
    wait()
    first = time.monotonic() - built
    rate(step, spec.data.batch_size, ROUND_SECONDS, wait)  # Captured meanwhile.
    while device.type == "cuda" and spec.train.capture == "on" and not lines:
        step()
    found = rate(step, spec.data.batch_size, ROUND_SECONDS, wait)
    memory = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    visit.report(
        f"R3GAN, capture {spec.train.capture}",
        width=spec.model.width,
        batch=spec.data.batch_size,
        slots=spec.slots,
        build_seconds=built - begun,
        first_round_seconds=first,
        images_per_second=found,
        memory_gib=memory,
        forecast_gib=forecast(spec).total / GIB,
        told=lines,
    )


if __name__ == "__main__":
    sys.exit(main())
