"""Speed of a round and of the whole loop, beside the DCGAN training step of tutorials."""

import resource
import statistics
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from ganrun.benchmarks import gpu_step, tutorial_step
from ganrun.benchmarks.comparison import in_turn, rate, ratio, result
from ganrun.benchmarks.round_phases import phases
from ganrun.benchmarks.rounds import (
    CPU,
    a_batch,
    changed,
    device_of,
    flops,
    peak_flops,
    product_share,
    rounds,
    use_threads,
)
from ganrun.config.run_spec import RunSpec
from ganrun.data.index import open_data
from ganrun.errors import UserError
from ganrun.telemetry.messages import Command, Event, Tick
from ganrun.telemetry.series import IMAGES_PER_SECOND
from ganrun.training.player_step import has_bf16
from ganrun.worker.channel import Channel
from ganrun.worker.worker import run_worker

REPEATS, SECONDS, TICK_SECONDS = 5, 6.0, 6.0


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure images/s of a round in float32 and, if supported, bf16; of the loop; and of the peer; in turn.

    All run on one slot, which is the peer's computation, with the same threads. Only the loop reads data from storage.
    A GPU is measured where there is one, see `gpu_step`.

    Raises:
        UserError: the config asks for a GPU, and there is none.
    """
    without = _without_data(spec.data.shards)
    if torch.cuda.is_available():
        return gpu_step.measure(spec, torch.device("cuda", 0), SECONDS, REPEATS, None if without else loop)
    device_of(spec.cluster)
    return _on_cpu(spec, without)


def _on_cpu(spec: RunSpec, without: str | None) -> dict[str, Any]:
    """Measure on the CPU, `without` the loop for that reason."""
    use_threads(spec.cluster)
    spec, size = changed(spec, data__slots=1), spec.data.batch_size
    before = _resident_mib()
    state, first = rounds(changed(spec, train__precision="float32"))
    operations = flops(first) / size
    memory = _resident_mib() - before
    batch = a_batch(spec, size)
    steps = {"float32": first, "peer": tutorial_step.TutorialStep.of(spec).steps(batch)}
    if has_bf16(CPU):
        steps["bf16"] = rounds(changed(spec, train__precision="bf16"))[1]
    best = "bf16" if spec.train.precision == "bf16" and has_bf16(CPU) else "float32"
    sides: dict[str, Callable[[], float]] = {
        name: lambda step=step: rate(step, size, SECONDS)  # type: ignore[misc]
        for name, step in steps.items()
    }
    warm = in_turn(sides, 1)
    if find_spec("lightning"):
        sides["lightning"] = import_module("ganrun.benchmarks.lightning_step").loop(spec, SECONDS)
    with tempfile.TemporaryDirectory() as storage:
        if not without:
            sides["loop"] = loop(spec, storage, warm[best][0], CPU)
        sides["peak"] = peak_flops  # Several repeats: a shared machine is only sometimes at its best.
        rates = in_turn(sides, REPEATS)
    peak = max(rates.pop("peak"))
    return result(
        "step",
        tutorial_step.NAME,
        "images/s",
        rates[best],
        rates["peer"],
        operations * statistics.median(rates["float32"]) / peak,
        sides={("round, " if name in ("float32", "bf16") else "") + name: found for name, found in rates.items()},
        float32_ratio=ratio(rates["float32"], rates["peer"]),
        bf16_ratio=ratio(rates["bf16"], rates["peer"]) if "bf16" in rates else None,
        loop_over_step=None if without else ratio(rates["loop"], rates[best]),
        without_loop=without,
        over_lightning=ratio(rates[best], rates["lightning"]) if "lightning" in rates else None,
        flops_per_image=operations,
        peak_flops=peak,
        product_share=statistics.median(product_share(first) for _ in range(REPEATS)),
        peak_mib=memory,
        phases=phases(state, first),
    )


def describe(found: dict[str, Any]) -> str:
    """Describe the result in words."""
    if "launches" in found:
        return gpu_step.describe(found)
    bf16 = (
        "not measured: this CPU does not compute in it" if found["bf16_ratio"] is None else f"{found['bf16_ratio']:.2f}"
    )
    whole = f"not measured: {found['without_loop']}"
    if found["loop_over_step"]:
        whole = f"{found['loop_over_step']:.3f} of the round"
    lightning = "not measured: lightning is not installed"
    if found["over_lightning"]:
        lightning = f"a round is {found['over_lightning']:.2f} times as fast"
    width = max(map(len, found["phases"]))
    return "\n".join(
        [
            f"a round: {found['ours']:,.1f} images/s; {found['peer']}: {found['theirs']:,.1f} images/s",
            f"ratio in float32 {found['float32_ratio']:.2f}, in bf16 {bf16} "
            f"(medians of {found['repeats']} repeats in turn, spread {found['spread']:.0%})",
            f"the whole loop (stream, ticks, pictures, checkpoints): {whole}",
            f"Lightning's manual optimisation: {lightning}",
            f"float32: {found['flops_per_image'] / 1e9:.2f} GFLOP an image, {found['limit_share']:.0%} of the "
            f"{found['peak_flops'] / 1e9:.0f} GFLOP/s of a matrix product here; {found['peak_mib']:,.0f} MiB at most",
            f"convolutions and matrix products take {found['product_share']:.0%} of it; with all else free its ratio "
            f"would be {found['float32_ratio'] / found['product_share']:.2f}",
            *(f"  {name:<{width}}  {share:6.1%}" for name, share in found["phases"].items()),
        ]
    )


def _without_data(shards: str | list[str]) -> str | None:
    """Return why there is no loop to measure, or None."""
    try:
        open_data(shards)
    except UserError as error:
        return str(error)
    return None


def _resident_mib() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def loop(spec: RunSpec, storage: str, images_per_second: float, device: torch.device) -> Callable[[], float]:
    """Return a function that continues a run in this process for two ticks and returns images/s of the second.

    Ticks, each with a checkpoint, come every few seconds: far more often than usual.
    """
    size = spec.data.batch_size
    tick = max(1, round(images_per_second * TICK_SECONDS / size)) * size
    spec = changed(spec, run__storage=storage, run__start_from=None, train__tick_images=tick)
    spec = changed(spec, checkpoint__every_images=tick, evaluate__every_images=0, train__schedule=())
    total = 0

    def on() -> float:
        nonlocal total
        total += 2 * tick
        events: list[Event] = []

        def handle(some: list[Event]) -> tuple[bool, list[Command]]:
            events.extend(some)
            return False, []

        channel = Channel(handle, listen=True)
        run_worker(changed(spec, train__total_images=total), 0, 1, device, channel)
        channel.close()
        ticks = [event.values for event in events if isinstance(event, Tick)]
        return float(ticks[-1][IMAGES_PER_SECOND.key])

    return on
