"""What it costs a run on a CPU to be watched, in CPU seconds: those of the driver's two threads, of what it hears, and
of the sidecar, beside those of the rounds.

CPU seconds and not images a second: of a machine that others use, a percent of time cannot be told from noise.
"""

import math
import statistics
import threading
import time
from typing import Any

import torch

from ganrun.benchmarks.comparison import ratio, result
from ganrun.benchmarks.sidecar_process import SidecarProcess
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.data.decode import RawBatch
from ganrun.evaluation.pictures import to_png
from ganrun.rng import KeyedNoise
from ganrun.slots import Slots
from ganrun.telemetry.messages import Event, Progress, SamplesDrawn, Tick
from ganrun.telemetry.push import Pusher
from ganrun.telemetry.series import NONFINITE
from ganrun.telemetry.state import RunHistory, RunState
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState

REPEATS, SECONDS = 6, 10.0
"""So many stretches of a run, each of at least two pushes."""
SAY_SECONDS = 0.25
"""How often the driver hears of the workers."""


def measure(spec: RunSpec) -> dict[str, Any]:
    """CPU seconds of rounds, and of pushes every `telemetry.push_seconds` to a real sidecar beside them."""
    torch.set_num_threads(max(1, int(spec.cluster.cpus_per_worker)))
    state = new_state(spec, torch.device("cpu"), Slots(1))
    with SidecarProcess() as sidecar, _Watched(spec, state, sidecar) as watched:
        watched.stretch()
        stretches = [watched.stretch() for _ in range(REPEATS)]
    watched_rates = [rounds / (own + watching) for rounds, own, watching in stretches]
    alone = [rounds / own for rounds, own, _ in stretches]
    shares = [watching / own for _, own, watching in stretches]
    return result(
        "telemetry",
        "the same rounds unwatched",
        "rounds a CPU second",
        watched_rates,
        alone,
        limit_share=ratio(watched_rates, alone),
        watching_share=statistics.mean(shares),
        error=statistics.stdev(shares) / math.sqrt(REPEATS),
    )


def describe(result: dict[str, Any]) -> str:
    """In words."""
    return (
        f"watched {result['ours']:.3g}, {result['peer']} {result['theirs']:.3g} rounds a CPU second\n"
        f"being watched takes {result['watching_share']:.2%} of what the rounds take (standard error "
        f"{result['error']:.2%} over {result['repeats']} stretches of {SECONDS:.0f} s)"
    )


class _Watched:
    """A play with all that a driver does to have it shown."""

    def __init__(self, spec: RunSpec, state: TrainingState, sidecar: SidecarProcess) -> None:
        self.spec, self.state, self.sidecar = spec, state, sidecar
        self.run_state = RunState(spec.run, spec.train, spec.telemetry, RunHistory())
        self._heard = 0.0
        """CPU seconds in which the thread of the rounds told the state something: in a run it is the driver's."""
        self._over = threading.Event()
        self._batch: RawBatch = {"image": torch.randint(0, 256, _shape(spec.data), dtype=torch.uint8)}
        if spec.model.classes:
            self._batch["label"] = torch.arange(spec.data.batch_size) % spec.model.classes

    def __enter__(self) -> "_Watched":
        seconds = self.spec.telemetry.push_seconds or 5
        self._pusher = Pusher(self.run_state, self.sidecar.address, False, seconds, _unheard)
        self._driver = threading.Thread(target=_hear, args=(self.run_state, self.state, self._over), daemon=True)
        self._driver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._driver.join()
        self._pusher.close()

    def stretch(self) -> tuple[int, float, float]:
        """Rounds, and ticks once a second: their number, their CPU seconds, and those of being watched."""
        whole, watching, rounds = time.process_time(), self._watching(), 0
        here = self._here()
        begun = ticked = time.perf_counter()
        while (now := time.perf_counter()) - begun < SECONDS:
            self.state.round(lambda: [self._batch])
            rounds += 1
            if now - ticked > 1:
                ticked, told = now, _tick(self.state, self.spec.telemetry.sample_images)
                before = time.thread_time()
                for event in told:
                    self.run_state.handle(event)
                self._heard += time.thread_time() - before
        ours = self._here() - here
        return rounds, time.process_time() - whole - ours, self._watching() - watching

    def _here(self) -> float:
        """CPU seconds of being watched in this process."""
        return self._heard + _cpu_seconds(self._pusher._thread) + _cpu_seconds(self._driver)

    def _watching(self) -> float:
        return self._here() + self.sidecar.cpu_seconds


def _cpu_seconds(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _shape(data: DataConfig) -> tuple[int, ...]:
    return data.batch_size, data.channels, data.image_size, data.image_size


def _tick(state: TrainingState, count: int) -> list[Event]:
    """What a worker says at a tick."""
    values, nonfinite = state.recorder.read()
    noise = KeyedNoise(state.seed, 0, 0, 0, state.device, state.dtype)
    with torch.inference_mode():
        z = state.game.latent.draw(noise, count, "samples/z")
        images = state.game.sample(state.ema_networks, z, state.game.labels(0, len(z), state.device))
    return [
        Tick(state.images, values | {NONFINITE.key: nonfinite}),
        SamplesDrawn(state.images, to_png(images), 0.0),
    ]


def _hear(run_state: RunState, state: TrainingState, over: threading.Event) -> None:
    """The driver's part."""
    while not over.wait(SAY_SECONDS):
        run_state.handle(Progress(state.images))


def _unheard(text: str) -> None:
    """What a pusher says to the user, whom nobody asked here."""
