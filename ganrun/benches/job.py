"""How fast the whole job is beside the round alone: what Ray, the stream, telemetry, samples and checkpoints cost.

The job is a real `ganrun train` of the config, from wherever data.shards is to a folder of its own in run.storage,
which is deleted after; a sidecar is pushed to. Its rate is its own record's, from the second tick to the last, so that
starting is left out; its ticks, samples and checkpoints come more often than a config has them. Scores are off: what
they cost is the config's choice, and `ganrun runs show` tells it of a run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from ganrun.benches.telemetry import Sidecar
from ganrun.data.decode import RawBatch
from ganrun.errors import RunError, UserError
from ganrun.games.build import build_game
from ganrun.play import Play
from ganrun.records.lines import Line, read_curve
from ganrun.sections import Config
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.telemetry.accounts import PREFIX
from ganrun.telemetry.protocol import VARIABLE

REPEATS, JOB_SECONDS, ROUND_SECONDS = 5, 24.0, 6.0
TICKS, CHECKPOINTS = 8, 2
"""Of each job."""


def measure(config: Config) -> dict[str, Any]:
    """Images/s of the job and of the round alone, in turn, on the same slots and threads.

    Raises:
        UserError: the config has several workers, whose rounds one process does not play.
        RunError: the job failed.
    """
    if config.cluster.workers != 1:
        raise UserError(f"cluster.workers: {config.cluster.workers}, but bench job compares one; set it to 1")
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_worker)))
    play = Play(build_game(config, torch.device("cpu")), config, Slots(config.slots))
    rate = _round_rate(play, ROUND_SECONDS)
    job, place = _job(config, rate), f"{config.run.storage}/.bench-{uuid.uuid4().hex[:12]}"
    ours, alone, spent = list[float](), list[float](), Counter[str]()
    try:
        with Sidecar() as address, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(job.to_yaml())
            for repeat in range(REPEATS):
                alone.append(_round_rate(play, ROUND_SECONDS))
                ticks = _ran(file, place, f"repeat{repeat}", address.url)
                alone[-1] = (alone[-1] + _round_rate(play, ROUND_SECONDS)) / 2  # Before and after: machines drift.
                ours.append((ticks[-1]["images"] - ticks[0]["images"]) / (ticks[-1]["time"] - ticks[0]["time"]))
                for tick in ticks[1:]:
                    spent.update({name: value for name, value in tick.items() if name.startswith(PREFIX)})
    finally:
        open_storage(config.run.storage).delete(place.rpartition("/")[2])
    ratios = [whole / part for whole, part in zip(ours, alone, strict=True)]
    seconds = sum(spent.values())
    return {
        "what": "job",
        "peer": "the round alone, data in memory",
        "ours": statistics.median(ours),
        "theirs": statistics.median(alone),
        "unit": "images/s",
        "ratio": statistics.median(ratios),
        "limit_share": statistics.median(ratios),
        "repeats": REPEATS,
        "spread": (max(ratios) - min(ratios)) / statistics.median(ratios),
        "job_over_step": statistics.median(ratios),
        "shares": {name.removeprefix(PREFIX): value / seconds for name, value in spent.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """In words."""
    shares = ", ".join(f"{part} {share:.1%}" for part, share in result["shares"].items())
    return (
        f"the job: {result['ours']:,.0f} images/s; {result['peer']}: {result['theirs']:,.0f} images/s\n"
        f"ratio {result['ratio']:.3f} (median of {result['repeats']} repeats in turn, spread {result['spread']:.0%})\n"
        f"the job's time: {shares}"
    )


def _job(config: Config, rate: float) -> Config:
    """The config with as many images as take about `JOB_SECONDS`, and without scores."""
    batch = config.data.batch_size
    tick = max(1, int(rate * JOB_SECONDS / TICKS / batch)) * batch
    updates: dict[str, dict[str, Any]] = {
        "train": {"total_images": tick * TICKS, "tick_images": tick},
        "evaluate": {"every_images": 0},
        "checkpoint": {"every_images": tick * TICKS // CHECKPOINTS},
    }
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=update) for name, update in updates.items()}
    )


def _round_rate(play: Play, seconds: float) -> float:
    """Images/s of rounds on the same batches in memory."""
    data, size = play.config.data, play.config.data.batch_size // play.slots.total
    shape = (size, data.channels, data.image_size, data.image_size)
    batches: list[RawBatch] = []
    for _ in play.slots.owned:
        batch: RawBatch = {"image": torch.randint(0, 256, shape, dtype=torch.uint8)}
        if play.config.model.classes:
            batch["label"] = torch.arange(size) % play.config.model.classes
        batches.append(batch)
    play.round(lambda: batches)
    before, begun = play.images, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        play.round(lambda: batches)
    return (play.images - before) / passed


def _ran(file: Path, place: str, name: str, sidecar: str) -> list[Line]:
    """The ticks of a run of the config, from the second on."""
    command = [sys.executable, "-m", "ganrun.train", str(file), f"run.storage={place}", f"run.name={name}"]
    done = subprocess.run(command, env=os.environ | {VARIABLE: sidecar}, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"ganrun train left with {done.returncode}: {done.stderr.strip()[-500:]}")
    curve, _ = read_curve(open_storage(f"{place}/{name}"))
    return [line for line in curve if "images_per_second" in line][1:]
