"""Health of a run in words: faults, and advice for each."""

import time
from collections.abc import Iterator

from ganrun.telemetry import series as metrics
from ganrun.telemetry.messages import FAILURE
from ganrun.telemetry.run_report import Level, Remark, RunSummary
from ganrun.telemetry.sidecar.runs import Run
from ganrun.telemetry.symptoms import ADVICE

DATA_WAIT_RATIO, STRAGGLING, CHECKPOINT_SECONDS = 0.3, 1.5, 3_600.0
"""Thresholds of warnings: share of time, ratio of a rank to the median rank, age in seconds of the last checkpoint."""


def words(run: Run, now: float) -> list[Remark]:
    """Return remarks on the health of a run, sorted from bad to good; never empty.

    Args:
        run: newest state of the run.
        now: current time of the clock of `Runs`.
    """
    found = [*_life(run, now), *_checkpoints(run, now), *_numbers(run), *_speed(run, now)]
    found.sort(key=lambda word: ("bad", "warning", "good").index(word.level))
    return found


def _life(run: Run, now: float) -> Iterator[Remark]:
    match run.state(now):
        case "silent":
            yield Remark(
                "bad",
                f"No push for {format_duration(now - run.heard)}: the command was killed, or its machine or "
                f"network is down. `ganrun runs show {run.place}` tells if the run is alive; the "
                "same command resumes it.",
            )
        case "failed":
            text = run.notes[-1].text if run.notes else "its terminal says why"
            yield Remark("bad", f"The run failed: {text}")
        case "stopped":
            yield Remark("good", "Stopped with a checkpoint: the same command resumes it.")
        case "finished":
            yield Remark("good", "Finished: all images are shown.")
        case _ if trials := trials_of(run):
            counts = [f"{count:,.0f} {state}" for state, count in trials.items() if count]
            yield Remark("good", f"Searching; trials: {', '.join(counts) or 'none yet'}.")
        case _:
            text = "Running." if run.value(metrics.WORKERS) else "Waiting for Ray and its workers to start."
            yield Remark("good", text)
    if failures := run.value(metrics.RESTARTS, FAILURE):
        yield Remark("warning", f"Started again after a failure {times(failures)}: see events/ of the run.")
    if rollbacks := run.value(metrics.ROLLBACKS):
        text = "lower optimizer.*.learning_rate if it happens again"
        yield Remark("warning", f"Rolled back to a checkpoint {times(rollbacks)}: {text}.")


def _checkpoints(run: Run, now: float) -> Iterator[Remark]:
    saved = run.value(metrics.CHECKPOINT_TIME)
    failures = run.value(metrics.CHECKPOINT_FAILURES)
    if failures:
        text = "check the storage's free space, permissions and address"
        level: Level = "bad" if run.unsaved else "warning"
        yield Remark(level, f"A checkpoint could not be written {times(failures)}: {text}.")
    if run.state(now) != "running" or trials_of(run):
        return
    if saved is None:
        yield Remark("good", "No checkpoint in this command yet: checkpoint.every_images says when.")
        return
    age = time.time() - saved
    text = f"The last checkpoint is {format_duration(age)} old"
    if age > CHECKPOINT_SECONDS:
        yield Remark("warning", f"{text}: a crash would lose that much; lower checkpoint.every_images.")
    else:
        yield Remark("good", f"{text}.")


def _numbers(run: Run) -> Iterator[Remark]:
    if nonfinite := run.value(metrics.NONFINITE):
        text = "harmless if rare; if not, lower optimizer.*.learning_rate, or for a GAN choose another objective.loss"
        yield Remark("warning", f"Turns skipped because a gradient was not finite: {nonfinite:,.0f}; {text}.")
    for series, labels, value in run.samples:
        if series is metrics.COLLAPSE_SUSPECTED and value:
            (symptom,) = labels
            advice = ADVICE.get(symptom, series.help)
            yield Remark("bad", f"Collapse suspected, {symptom.replace('_', ' ')}: {advice}.")
    if (run.value(metrics.IMAGES) or 0) > (run.value(metrics.TARGET_IMAGES) or 0) / 2:  # Earlier a run may well be.
        worse = [own[0] for series, own, value in run.samples if series is metrics.WORSE_THAN_BASELINE and value]
        if worse:
            text = "look at the samples; raise the weights of objective.reconstruction"
            yield Remark("warning", f"Worse than a trivial baseline in {', '.join(worse)}: {text}.")
    if skipped := run.value(metrics.SAMPLES_SKIPPED):
        yield Remark("warning", f"Corrupt samples skipped: {skipped:,.0f}; prepare the data again.")


def _speed(run: Run, now: float) -> Iterator[Remark]:
    if run.state(now) != "running":
        return
    wait = run.value(metrics.DATA_WAIT_RATIO)
    if wait is not None and wait > DATA_WAIT_RATIO:
        text = "raise cluster.cpus_per_worker or data.cache_mib, or use a closer storage"
        yield Remark("warning", f"{wait:.0%} of the time goes into waiting for data: {text}.")
    elif wait is not None:
        yield Remark("good", f"{wait:.0%} of the time goes into waiting for data.")
    ranks = sorted((value, own[0]) for series, own, value in run.samples if series is metrics.RANK_ROUND_SECONDS)
    if len(ranks) > 1 and ranks[-1][0] > STRAGGLING * ranks[(len(ranks) - 1) // 2][0]:
        slowest, rank = ranks[-1]
        text = "the others wait for it; check the load of its machine"
        yield Remark("warning", f"Rank {rank} takes {slowest:.3g} s per round: {text}.")


def trials_of(run: Run) -> dict[str, float]:
    """Return the number of trials of a search in each state; empty for a run and for a trial."""
    return {own[0]: count for series, own, count in run.samples if series is metrics.TRIALS}


def times(count: float) -> str:
    """Return a count in words: `once`, `2 times`."""
    return "once" if count == 1 else f"{count:,.0f} times"


def format_duration(seconds: float) -> str:
    """Return a duration with its unit: `40 s`, `3 h`."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def summary(run: Run, now: float) -> RunSummary:
    """Return the summary of a run for /runs."""
    scores = [value for series, _, value in run.samples if series in metrics.DISTANCES]
    return RunSummary(
        run=run.name,
        trial=run.trial,
        place=run.place,
        state=run.state(now),
        age_seconds=round(now - run.heard, 1),
        images=run.value(metrics.IMAGES),
        target_images=run.value(metrics.TARGET_IMAGES),
        images_per_second=run.value(metrics.IMAGES_PER_SECOND),
        workers=run.value(metrics.WORKERS),
        data_wait_ratio=run.value(metrics.DATA_WAIT_RATIO),
        round_seconds=run.value(metrics.ROUND_SECONDS),
        nonfinite=run.value(metrics.NONFINITE),
        score=scores[0] if scores else None,
        score_name=run.score_name,
        trials=trials_of(run),
        health=words(run, now),
        notes=run.notes,
        parts={name: digest for name, (digest, _) in run.parts.items()},
    )
