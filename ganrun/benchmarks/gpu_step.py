"""Speed of a round and of the whole loop on a GPU, beside the example's step and the lean one, which is the limit.

All sides have their images in the GPU's memory, and run in turn.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ganrun.benchmarks.comparison import in_turn, rate, ratio, result
from ganrun.benchmarks.lean_step import LeanStep, as_graph
from ganrun.benchmarks.rounds import a_batch, changed, placed, rounds, waiting
from ganrun.benchmarks.tutorial_step import NAME, TutorialStep
from ganrun.config.run_spec import RunSpec
from ganrun.training.cuda_segment import Segment
from ganrun.worker.gpus import use_gpu

OURS, OURS_32, LEAN, LOOP = "ganrun, bf16", "ganrun, float32", "lean step, bf16, one CUDA graph", "loop, bf16"
EXAMPLE, EXAMPLE_16 = f"{NAME}, float32", f"{NAME}, bf16 channels_last"
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
"""Beginnings of the calls of CUDA's runtime that give the GPU work, by the profiler's names."""

Loop = Callable[[RunSpec, str, float, torch.device], Callable[[], float]]
"""Makes a function that continues a run and returns its images/s; see `step.loop`."""


def measure(
    spec: RunSpec,
    device: torch.device,
    seconds: float,
    repeats: int,
    loop: Loop | None,
    segment: Callable[[], Segment] | None = None,
) -> dict[str, Any]:
    """Measure images/s of all sides in turn.

    Args:
        spec: the run; all sides have one slot, which is the peer's computation.
        device: the GPU.
        seconds, repeats: how long each side runs, and how often.
        loop: makes the side of the whole loop; None: there is no data to read.
        segment: makes a segment of captured rounds; None: CUDA graphs.
    """
    if device.type == "cuda":
        use_gpu(device)
    spec = changed(spec, data__slots=1)
    size, wait, lines = spec.data.batch_size, waiting(device), list[str]()
    steps = _steps(spec, device, lines.append, segment)
    sides: dict[str, Callable[[], float]] = {
        name: lambda step=step: rate(step, size, seconds, wait)  # type: ignore[misc]
        for name, step in steps.items()
    }
    warm = in_turn(sides, 1)  # Rounds are captured, and cuDNN has chosen its algorithms.
    with tempfile.TemporaryDirectory() as storage:
        if loop:
            sides[LOOP] = loop(changed(spec, train__precision="bf16"), storage, warm[OURS][0], device)
        rates = in_turn(sides, repeats)
    best = max((EXAMPLE, EXAMPLE_16), key=lambda name: statistics.median(rates[name]))
    return result(
        "step",
        best,
        "images/s",
        rates[OURS],
        rates[best],
        ratio(rates[OURS], rates[LEAN]),
        sides=rates,
        example_float32_ratio=ratio(rates[OURS], rates[EXAMPLE]),
        float32_ratio=ratio(rates[OURS_32], rates[EXAMPLE]),
        bf16_ratio=ratio(rates[OURS], rates[EXAMPLE_16]),
        loop_over_step=ratio(rates[LOOP], rates[OURS]) if loop else None,
        launches={name: launches(step, wait) for name, step in steps.items()},
        capture=lines,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        peak_mib=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
    )


def _steps(
    spec: RunSpec, device: torch.device, tell: Callable[[str], None], segment: Callable[[], Segment] | None
) -> dict[str, Callable[[], None]]:
    batch = placed(a_batch(spec, spec.data.batch_size), device)
    ours = {
        name: rounds(changed(spec, train__precision=precision), None, None, device, tell, segment)[1]
        for name, precision in ((OURS, "bf16"), (OURS_32, "float32"))
    }
    return {
        **ours,
        EXAMPLE: TutorialStep.of(spec, device=device).steps(batch),
        EXAMPLE_16: TutorialStep.of(spec, device=device).in_bf16(batch),
        LEAN: as_graph(LeanStep(changed(spec, train__precision="float32"), batch), segment and segment()),
    }


def launches(step: Callable[[], object], wait: Callable[[], object]) -> int:
    """Return how often a step gives the GPU work: kernels, graphs and copies; 0 without a GPU."""
    wait()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        step()
        wait()
    return launches_in((event.key, event.count) for event in trace.key_averages())


def launches_in(counts: Iterable[tuple[str, int]]) -> int:
    """Return the number of launches among calls by name."""
    return sum(count for name, count in counts if name.startswith(LAUNCHES))


def describe(found: Mapping[str, Any]) -> str:
    """Describe the result in words."""
    width = max(map(len, found["sides"]))
    loop = f"{found['loop_over_step']:.3f} of the round" if found["loop_over_step"] else "not measured: no data"
    return "\n".join(
        [
            f"on {found['device']}, one slot, images/s and launches a step:",
            *(
                f"  {name:<{width}}  {statistics.median(rates):>10,.0f}  {found['launches'].get(name, ''):>6}"
                for name, rates in found["sides"].items()
            ),
            f"a round in bf16 is {found['ratio']:.2f} times the faster example, {found['example_float32_ratio']:.2f} "
            f"times the one in float32 and {found['limit_share']:.2f} of the lean graph "
            f"(medians of {found['repeats']} repeats in turn, spread {found['spread']:.0%})",
            f"the whole loop (stream, ticks, pictures, checkpoints): {loop}",
            *found["capture"],
        ]
    )
