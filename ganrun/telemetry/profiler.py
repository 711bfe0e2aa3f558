"""Profile of some rounds in the middle of a run: a Chrome trace and a summary page."""

import gzip
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WARMUP_ROUNDS = 5
"""Rounds that are traced and discarded: the profiler is slow at first."""
SHOWN = 15
"""Largest number of rows in a table."""
ROUND = "ProfilerStep"
"""Prefix of torch's name of a round's span; its number follows."""
WAITING = ("aten::_local_scalar_dense", "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize")
"""Operations in which the host waits for the GPU. The first is `.item()`, which also occurs on a CPU."""
MIB = 2**20


class RoundProfiler:
    """Profiler of one stretch of rounds of this worker.

    Args:
        rounds: number of rounds to profile.
        device: device of the worker.
        about: first line of the summary: the subject of the profile.
        ready: called with the files, `trace.json.gz` and `summary.md`.
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
        """Start the profiler at the first call, and advance it by a round at each later one."""
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
        """Stop the profiler. Return True if all rounds were profiled."""
        if self._begun and not self._done:
            self._done = True  # An incomplete profile is discarded.
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
    """Return the summary page as Markdown.

    Args:
        averages: `key_averages()` of torch's profiler, in microseconds.
        rounds: number of profiled rounds.
        gpu: True if kernels ran on a GPU.
        about: first line of the page.
    """
    spans = [each for each in averages if each.is_user_annotation]
    whole = sum(each.cpu_time_total for each in spans if each.key.startswith(ROUND)) / 1000 / rounds
    kernels = [each for each in averages if each.device_type.name != "CPU"]
    operators = [each for each in averages if each not in spans and each not in kernels]
    parts = [
        f"# {rounds} rounds, {whole:.2f} ms each\n\n{about}\n\nThe profiler slows rounds down; shares mean more than "
        "times. Times are means per round, in milliseconds.",
        _phases(spans, rounds, whole, gpu),
        _table("Operators, by self CPU time", operators, "self_cpu_time_total", rounds, whole),
    ]
    if gpu:
        parts.append(_table("Kernels, by GPU time", kernels, "self_device_time_total", rounds, whole))
    return "\n\n".join([*parts, _memory(operators, rounds, gpu), _waits(averages, rounds)]) + "\n"


def _phases(spans: Sequence[Any], rounds: int, whole: float, gpu: bool) -> str:
    """Return the table of the spans of training/player_step.py and state.py, in order of first occurrence."""
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
    text = f"Host: {peak:,.0f} MiB peak since the process started; {taken:,.0f} MiB allocated for tensors per round."
    if gpu:
        text += f" GPU: {torch.cuda.max_memory_allocated() / MIB:,.0f} MiB peak since the last tick."
    return f"## Memory\n\n{text}"


def _waits(averages: Sequence[Any], rounds: int) -> str:
    counts = {each.key: each.count / rounds for each in averages if each.key in WAITING}
    told = ", ".join(f"{name} {count:.1f}" for name, count in counts.items()) or "none"
    return f"## Synchronisation of host and device\n\nCalls per round: {told}."
