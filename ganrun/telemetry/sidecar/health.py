"""How a run does, in words: what is wrong and what to do about it."""

import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from ganrun.telemetry.series import DISTANCES
from ganrun.telemetry.sidecar.runs import Run
from ganrun.telemetry.symptoms import ADVICE

DATA_WAIT_RATIO, STRAGGLING, CHECKPOINT_SECONDS = 0.3, 1.5, 3_600.0
"""From these on, it is worth a word: share of time; rank over median; age while running."""


Level = Literal["good", "warning", "bad"]


class Word(NamedTuple):
    """One remark."""

    level: Level
    text: str

    def to_json(self) -> dict[str, str]:
        """As /runs has it."""
        return self._asdict()


def words(run: Run, now: float) -> list[Word]:
    """The worst first; never empty.

    Args:
        run: as its driver last told it.
        now: by the clock that it was heard by.
    """
    found = [*_life(run, now), *_checkpoints(run, now), *_numbers(run), *_speed(run, now)]
    found.sort(key=lambda word: ("bad", "warning", "good").index(word.level))
    return found


def _life(run: Run, now: float) -> Iterator[Word]:
    match run.state(now):
        case "silent":
            yield Word(
                "bad",
                f"No word for {format_duration(now - run.heard)}: its command was killed, its machine is gone, or the "
                f"network is. `ganrun runs show {run.place}` tells whether it lives; the same command goes on with it.",
            )
        case "failed":
            text = run.notes[-1]["text"] if run.notes else "its terminal says why"
            yield Word("bad", f"The run failed: {text}")
        case "stopped":
            yield Word("good", "Stopped with a checkpoint: the same command goes on with it.")
        case "finished":
            yield Word("good", "Finished: it has all its images.")
        case _:
            text = "Running." if run.value("workers") else "Waiting for Ray and its workers to start."
            yield Word("good", text)
    if failures := run.value("restarts_total", "failure"):
        yield Word("warning", f"Started again after a failure {times(failures)}: see events/ of the run.")
    if rollbacks := run.value("rollbacks_total"):
        text = "lower optimizer.*.learning_rate if it happens again"
        yield Word("warning", f"Rolled back to a checkpoint {times(rollbacks)}: {text}.")


def _checkpoints(run: Run, now: float) -> Iterator[Word]:
    saved = run.value("checkpoint_last_success_timestamp_seconds")
    failures = run.value("checkpoint_failures_total")
    if failures:
        text = "look at the storage's space, rights and address"
        level: Level = "bad" if run.unsaved else "warning"
        yield Word(level, f"A checkpoint could not be written {times(failures)}: {text}.")
    if run.state(now) != "running":
        return
    if saved is None:
        yield Word("good", "No checkpoint in this command yet: checkpoint.every_images says when.")
        return
    age = time.time() - saved
    text = f"The last checkpoint is {format_duration(age)} old"
    if age > CHECKPOINT_SECONDS:
        yield Word("warning", f"{text}: so much a crash would cost; lower checkpoint.every_images.")
    else:
        yield Word("good", f"{text}.")


def _numbers(run: Run) -> Iterator[Word]:
    if nonfinite := run.value("nonfinite_total"):
        text = "harmless if rare; if not, lower optimizer.*.learning_rate or choose another objective.loss"
        yield Word("warning", f"Turns skipped since a gradient was not finite: {nonfinite:,.0f}; {text}.")
    for series, (*_, sign), value in ((s, o, v) for s, o, v in run.samples if s.name == "collapse_suspected"):
        if value:
            yield Word("bad", f"Collapse suspected, {sign.replace('_', ' ')}: {ADVICE.get(sign, series.help)}.")
    if skipped := run.value("samples_skipped_total"):
        yield Word("warning", f"Damaged samples passed over: {skipped:,.0f}; prepare the data again.")


def _speed(run: Run, now: float) -> Iterator[Word]:
    if run.state(now) != "running":
        return
    wait = run.value("data_wait_ratio")
    if wait is not None and wait > DATA_WAIT_RATIO:
        text = "more cluster.cpus_per_worker, a nearer storage or a larger data.cache_mib helps"
        yield Word("warning", f"{wait:.0%} of the time goes into waiting for data: {text}.")
    elif wait is not None:
        yield Word("good", f"{wait:.0%} of the time goes into waiting for data.")
    ranks = sorted((value, own[0]) for series, own, value in run.samples if series.name == "rank_round_seconds")
    if len(ranks) > 1 and ranks[-1][0] > STRAGGLING * ranks[(len(ranks) - 1) // 2][0]:
        slowest, rank = ranks[-1]
        text = "the others wait for it; look at what else its machine does"
        yield Word("warning", f"Rank {rank} takes {slowest:.3g} s a round: {text}.")


def times(count: float) -> str:
    """How often, in words."""
    return "once" if count == 1 else f"{count:,.0f} times"


def format_duration(seconds: float) -> str:
    """A duration for people."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def summary(run: Run, now: float) -> dict[str, Any]:
    """A run as /runs has it."""
    scores = [value for series, _, value in run.samples if series.name in DISTANCES]
    plain = ("images", "target_images", "images_per_second", "workers", "data_wait_ratio", "round_seconds")
    return {
        "run": run.name,
        "trial": run.trial,
        "place": run.place,
        "state": run.state(now),
        "age_seconds": round(now - run.heard, 1),
        **{name: run.value(name) for name in plain},
        "nonfinite": run.value("nonfinite_total"),
        "score": scores[0] if scores else None,
        "score_name": run.score_name,
        "health": [word.to_json() for word in words(run, now)],
        "notes": run.notes,
        "parts": {name: digest for name, (digest, _) in run.parts.items()},
    }
