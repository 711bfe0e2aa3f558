"""What some rounds in the middle of a run consist of: a Chrome trace, and a page that sums it up."""

import gzip
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WARMUP_ROUNDS = 5
"""Traced and thrown away: the profiler's own beginnings are slow."""
SHOWN = 15
ROUND = "ProfilerStep"
"""What torch names the span of a round, with its number."""
WAITING = ("aten::_local_scalar_dense", "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize")
"""In these the host waits for its GPU; the first one reads a number (`.item()`), on a CPU too."""
MIB = 2**20


class RoundProfiler:
    """Profiles so many rounds of this worker, once.

    Args:
        rounds: how many.
        device: what is computed on.
        about: a line of what is profiled, for the page.
        ready: is given the files, `trace.json.gz` and `summary.md`.
    """

    def __init__(
        self, rounds: int, device: torch.device, about: str, ready: Callable[[dict[str, bytes]], None]
    ) -> None:
        self.rounds, self.about, self._ready = rounds, about, ready
        activities = [ProfilerActivity.CPU]
        self._gpu = device.type == "cuda"
        if self._gpu:
            activities.append(ProfilerActivity.CUDA)
        self._done = self._begun = False
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=WARMUP_ROUNDS, active=rounds, repeat=1),
            profile_memory=True,
            on_trace_ready=self._finish,
        )

    def end_round(self) -> None:
        """Begins with the round that comes now, or goes on to the next."""
        if self._done:
            return
        if not self._begun:
            self._begun = True
            self._profiler.start()
            return
        self._profiler.step()
        if self._done:
            self._profiler.stop()

    def close(self) -> bool:
        """Ends it, whether it is over or not; whether it is."""
        if self._begun and not self._done:
            self._done = True  # What there is of it is of no use.
            self._profiler.stop()
            return False
        return self._done

    def _finish(self, profiler: Any) -> None:
        if self._done:
            return
        self._done = True
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(trace))
            content = gzip.compress(trace.read_bytes(), 6)
        page = summary(profiler.key_averages(), self.rounds, self._gpu, self.about)
        self._ready({"trace.json.gz": content, "summary.md": page.encode()})


def summary(averages: Sequence[Any], rounds: int, gpu: bool, about: str) -> str:
    """The page, as Markdown.

    Args:
        averages: what torch's profiler summed up by name, in microseconds.
        rounds: that were profiled.
        gpu: whether kernels ran on one.
        about: its first line.
    """
    spans = [each for each in averages if each.is_user_annotation]
    whole = sum(each.cpu_time_total for each in spans if each.key.startswith(ROUND)) / 1000 / rounds
    kernels = [each for each in averages if each.device_type.name != "CPU"]
    operators = [each for each in averages if each not in spans and each not in kernels]
    parts = [
        f"# {rounds} rounds, {whole:.2f} ms each\n\n{about}\n\nThe profiler slows rounds down; shares mean more than "
        "times. Times are the mean of a round's, in milliseconds.",
        _phases(spans, rounds, whole, gpu),
        _table("Operators, by the host's own time", operators, "self_cpu_time_total", rounds, whole),
    ]
    if gpu:
        parts.append(_table("Kernels, by the GPU's time", kernels, "self_device_time_total", rounds, whole))
    return "\n\n".join([*parts, _memory(operators, rounds, gpu), _waits(averages, rounds)]) + "\n"


def _phases(spans: Sequence[Any], rounds: int, whole: float, gpu: bool) -> str:
    """The spans of training/player_step.py and state.py, in the order in which they first came."""
    lines = ["## Phases", "| phase | ms | share |" + " GPU ms |" * gpu, "|---|---|---|" + "---|" * gpu]
    for each in (each for each in spans if ": " in each.key or each.key in ("data", "ema")):
        took = each.cpu_time_total / 1000 / rounds
        line = f"| {each.key} | {took:.2f} | {took / whole:.1%} |"
        lines.append(line + f" {each.device_time_total / 1000 / rounds:.2f} |" * gpu)
    return "\n".join([lines[0], "", *lines[1:]])


def _table(title: str, events: Sequence[Any], by: str, rounds: int, whole: float) -> str:
    ranked = sorted(events, key=lambda each: -getattr(each, by))[:SHOWN]
    lines = [f"## {title}", "", "| name | ms | share | calls |", "|---|---|---|---|"]
    for each in ranked:
        took = getattr(each, by) / 1000 / rounds
        lines.append(f"| {each.key[:80]} | {took:.2f} | {took / whole:.1%} | {each.count / rounds:.0f} |")
    return "\n".join(lines)


def _memory(operators: Sequence[Any], rounds: int, gpu: bool) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    taken = sum(max(each.self_cpu_memory_usage, 0) for each in operators) / MIB / rounds
    text = f"Host: {peak:,.0f} MiB at most since the process began; {taken:,.0f} MiB taken for tensors a round."
    if gpu:
        text += f" GPU: {torch.cuda.max_memory_allocated() / MIB:,.0f} MiB at most since the last tick."
    return f"## Memory\n\n{text}"


def _waits(averages: Sequence[Any], rounds: int) -> str:
    counts = {each.key: each.count / rounds for each in averages if each.key in WAITING}
    told = ", ".join(f"{name} {count:.1f}" for name, count in counts.items()) or "none"
    return f"## Where the host waits for numbers\n\nCalls a round: {told}."
