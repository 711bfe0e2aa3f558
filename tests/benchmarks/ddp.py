"""What it costs two workers to train one game: beside as many processes that have nothing to do with each other.

Both pairs have one thread and one core a process, and as many images a round. The two sides take turns, so that the
cores, and the memory that they share, are the same; what a pair can reach at most is what the independent ones do.

With `cluster.gpus_per_worker=1` there is a process for each GPU of this machine. Rounds are captured there; those of
plain DDP are not.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from ganrun.benchmarks import tutorial_step
from ganrun.benchmarks.comparison import in_turn, ratio, result
from ganrun.benchmarks.rounds import CPU, a_batch, changed, device_of, placed, rounds, waiting
from ganrun.config.run_spec import RunSpec
from ganrun.errors import UserError
from ganrun.ray_backend.cluster import LOOPBACK
from ganrun.slots import Slots
from ganrun.worker.gpus import use_gpu

Side = Callable[[RunSpec, Slots, torch.device], Callable[[], None]]
"""Makes what one process plays, from the run, the process among all, and its device."""
WORKERS, REPEATS, SECONDS = 2, 5, 3.0
PEER = "as many independent processes"
PLAIN = "plain DDP, textbook step"


def measure(spec: RunSpec) -> dict[str, Any]:
    """Images/s of two workers, of two independent processes, of plain DDP and of one process alone; in turn."""
    on_gpu = device_of(spec.cluster).type == "cuda"
    workers, cores = torch.cuda.device_count() if on_gpu else WORKERS, sorted(os.sched_getaffinity(0))
    if workers < WORKERS:
        raise UserError(f"bench ddp needs {WORKERS} GPUs; this machine has {workers}")
    if len(cores) < workers:
        raise UserError(f"bench ddp needs {workers} cores; this process may use {len(cores)}")
    if spec.data.batch_size % workers:
        raise UserError(f"data.batch_size: {spec.data.batch_size} cannot be cut in {workers}")
    portion = spec.data.batch_size // workers
    spec = changed(spec, data__slots=workers, train__precision="float32")
    alone = changed(spec, data__slots=1, data__batch_size=portion)
    each = len(cores) // workers if on_gpu else 1
    shares = [cores[rank * each : (rank + 1) * each] for rank in range(workers)]
    with contextlib.ExitStack() as stack:
        pairs = {
            name: stack.enter_context(_processes(side, spec, shares))
            for name, side, spec in (
                ("ganrun", _ours, spec),
                (PEER, _independent, alone),
                (PLAIN, _plain, alone),
            )
        }
        sides: dict[str, Callable[[], float]] = {
            name: lambda pair=pair: pair.rate(portion)  # type: ignore[misc]
            for name, pair in pairs.items()
        }
        sides["one process alone"] = lambda: pairs[PEER].rate(portion, only=1)
        in_turn(sides, 1)
        rates = in_turn(sides, REPEATS)
    return result(
        "ddp",
        PEER,
        "images/s",
        rates["ganrun"],
        rates[PEER],
        ratio(rates["ganrun"], rates[PEER]),
        sides=rates,
        plain_ratio=ratio(rates[PLAIN], rates[PEER]),
        over_plain=ratio(rates["ganrun"], rates[PLAIN]),
        over_one=ratio(rates["ganrun"], rates["one process alone"]),
        independent_over_one=ratio(rates[PEER], rates["one process alone"]),
        workers=workers,
    )


def describe(found: dict[str, Any]) -> str:
    """In words."""
    return (
        f"{found['workers']} workers: {found['ours']:,.1f} images/s; {found['peer']}, pinned alike: "
        f"{found['theirs']:,.1f} images/s\n"
        f"ratio {found['ratio']:.3f} (median of {found['repeats']} repeats in turn, spread {found['spread']:.0%})\n"
        f"{PLAIN}: {found['plain_ratio']:.3f} of the independent ones; ganrun is {found['over_plain']:.2f} times it\n"
        f"one process alone: ganrun is {found['over_one']:.2f} times it, the independent ones "
        f"{found['independent_over_one']:.2f} times"
    )


class _Pair:
    """Processes that play rounds when they are told to, and otherwise wait."""

    def __init__(self, lines: list[Connection]) -> None:
        self.lines, self._rounds = lines, 1

    def rate(self, portion: int, only: int | None = None) -> float:
        """Images/s of all of them together, over as many rounds as take some seconds."""
        lines = self.lines[:only]
        for line in lines:
            line.send(self._rounds)
        seconds = [line.recv() for line in lines]
        played = self._rounds
        self._rounds = max(1, round(played * SECONDS / statistics.mean(seconds)))
        return float(sum(played * portion / each for each in seconds))


@contextlib.contextmanager
def _processes(side: Side, spec: RunSpec, shares: list[list[int]]) -> Iterator[_Pair]:
    """Start a process for each share of the cores."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as meeting:
        ours, started = [], []
        for rank, cores in enumerate(shares):
            mine, theirs = context.Pipe()
            place = Slots(len(shares), rank, len(shares))
            process = context.Process(target=_serve, args=(side, spec, place, cores, f"{meeting}/store", theirs))
            process.start()
            ours.append(mine)
            started.append(process)
        try:
            yield _Pair(ours)
        finally:
            for line in ours:
                line.send(0)
            for process in started:
                process.join()


def _serve(side: Side, spec: RunSpec, place: Slots, cores: list[int], meeting: str, line: Connection) -> None:
    """One process: plays as many rounds as it hears, and says how many seconds that took, until it hears 0."""
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    device = torch.device("cuda", place.rank) if spec.cluster.gpus_per_worker else CPU
    if device.type == "cuda":
        use_gpu(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=place.rank, world_size=place.workers)
    play_round, wait = side(spec, place, device), waiting(device)
    while count := line.recv():
        begun = time.perf_counter()
        for _ in range(count):
            play_round()
        wait()
        line.send(time.perf_counter() - begun)
    dist.destroy_process_group()


def _ours(spec: RunSpec, place: Slots, device: torch.device) -> Callable[[], None]:
    return rounds(spec, place, None, device)[1]


def _independent(spec: RunSpec, place: Slots, device: torch.device) -> Callable[[], None]:
    return rounds(spec, None, None, device)[1]


def _plain(spec: RunSpec, place: Slots, device: torch.device) -> Callable[[], None]:
    batch = placed(a_batch(spec, spec.data.batch_size), device)
    return tutorial_step.TutorialStep.of(spec, distributed=True, device=device).steps(batch)
