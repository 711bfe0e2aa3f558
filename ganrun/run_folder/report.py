"""State of runs as text: a table of several, a description of one."""

import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ganrun.run_folder.status import FAILED, FINISHED, NEVER_STARTED, RUNNING, RunStatus, ScorePoint, followed_score
from ganrun.run_folder.time_breakdown import format_shares
from ganrun.storage import open_storage

SHOWN_NOTES = 5
"""Number of newest notes in the description of a run."""
MINUTE, HOUR, DAY = 60, 3600, 86400


def table(runs: list[RunStatus], now: float) -> str:
    """Return a table with a heading and one line per run. `now` is in seconds since the epoch."""
    heading = ("NAME", "STATE", "IMAGES", "DONE", "SCORE", "BEST", "LAST CHECKPOINT", "SIZE")
    rows = [heading, *(_row(run, now) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = ("NAME", "STATE")
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if title in left else cell.rjust(width)
            for title, cell, width in zip(heading, row, widths, strict=True)
        ]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def describe_run(run: RunStatus, now: float) -> str:
    """Return the description of a run, one fact per line. `now` is in seconds since the epoch."""
    facts = [*_life(run, now), *_progress(run, now), *_what(run), *_next(run)]
    return "\n".join([headline(run), *(f"  {name:<11} {text}" for name, text in facts)])


def headline(run: RunStatus) -> str:
    """Return name, state and progress of a run in one line."""
    share = f"{run.images:,} of {run.total_images:,} images ({_percent(run)})"
    return f"{run.name}: {run.state}, {share}" if run.state != NEVER_STARTED else f"{run.name}: {run.state}"


def score_name(config: dict[str, Any], search: bool = False) -> str:
    """Return the name of the score that a run or a search follows, with number of samples."""
    metric, _ = followed_score(config, search)
    if metric != "distance":
        return f"{metric} (n={config.get('evaluate', {}).get('samples')})"
    return distance_name(config)


def distance_name(config: dict[str, Any]) -> str:
    """Return the name of a run's distance, with extractor and number of samples."""
    evaluate, fields = config.get("evaluate", {}), config.get("data", {}).get("fields", {})
    if fields.get("image", {}).get("kind") == "point":
        if config.get("objective", {}).get("condition") == "masked":
            return f"Fréchet distance (of the numbers, n={evaluate.get('samples')})"
        return f"mode distance (n={evaluate.get('samples')})"
    return f"Fréchet distance ({evaluate.get('extractor')}, n={evaluate.get('samples')})"


def format_score(value: float | None) -> str:
    """Return a score rounded for display; None stands for a value that is not finite."""
    if value is None:
        return "not finite"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def format_bytes(count: int) -> str:
    """Return a size with a binary unit, to about two digits: `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """Return a duration with its unit, to about two digits: `40 s`, `3 h`."""
    if seconds < 2 * MINUTE:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.0f} h" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


def _row(run: RunStatus, now: float) -> tuple[str, ...]:
    saved = f"{format_duration(now - run.latest.time)} ago" if run.latest and run.latest.time else "-"
    scores = [format_score(score.value) if score else "-" for score in (run.last_score, run.best_score)]
    images = f"{run.images:,} of {run.total_images:,}"
    return (run.name, run.state, images, _percent(run), *scores, saved, format_bytes(run.bytes))


def _percent(run: RunStatus) -> str:
    # Rounded down: only a complete run has 100 %.
    return f"{min(100 * run.images // run.total_images, 100)} %"


def _life(run: RunStatus, now: float) -> Iterator[tuple[str, str]]:
    """Yield state, since when, number of workers, lease and starts."""
    attempts = run.attempts
    workers = f"{attempts.workers} worker{'s' * (attempts.workers != 1)}"
    heard = f"{_clock(run.active)} ({format_duration(now - run.active)} ago)"
    if run.lease:
        begun = attempts.time and f"on {workers} since {_clock(attempts.time)} ({format_duration(now - attempts.time)})"
        yield "running", begun or "no worker has started yet"
        yield "lease", f"held by {run.lease.holder} until {_clock(run.lease.expires)}, unless renewed"
    elif run.state == FAILED:
        yield "failed", f"last write at {heard}, on {workers}; it was neither finished nor stopped"
    elif run.state != NEVER_STARTED:
        yield run.state, f"at {heard}, on {workers}"
    if attempts.starts > 1:
        moved = f", {attempts.moved} to move or resize" * bool(attempts.moved)
        resumed, failed = attempts.resumed, attempts.restarted
        yield "starts", f"{attempts.starts}: {resumed} after a stop, {failed} after a failure{moved}"


def _progress(run: RunStatus, now: float) -> Iterator[tuple[str, str]]:
    yield "checkpoint", _checkpoint(run, now)
    if run.images_per_second:
        left = format_duration((run.total_images - run.images) / run.images_per_second)
        yield "speed", f"{run.images_per_second:,.0f} images/s at the last tick" + f", {left} left" * bool(run.lease)
    if run.spent:
        yield "time", f"{format_shares(run.spent)} (starts aside)"
    if run.best_score and run.last_score:
        yield "score", _scores(run, run.best_score, run.last_score)
    for note in run.notes[-SHOWN_NOTES:]:
        often = f" ({note['count']} times since {_clock(note['first_time'])})" if note["count"] > 1 else ""
        yield "note", f"{_clock(note['time'])} {_told(note)}{often}"
    if (more := len(run.notes) - SHOWN_NOTES) > 0:
        yield "note", f"and {more} other{'s' * (more > 1)} earlier: see {run.place}/events"


def _checkpoint(run: RunStatus, now: float) -> str:
    if run.latest is None:
        return "none yet"
    if run.latest.time is None:
        return f"{run.latest.checkpoint} is missing, though latest.json names it: resume takes the one before"
    return f"at {run.latest.images:,} images, {format_duration(now - run.latest.time)} ago"


def _scores(run: RunStatus, best: ScorePoint, last: ScorePoint) -> str:
    search = run.trials > 0
    direction = "lower is better" if followed_score(run.config, search)[1] else "higher is better"
    told = f"{score_name(run.config, search)}: {format_score(last.value)} at {last.images:,} images"
    if best == last:
        return f"{told}, the best so far ({direction})"
    return f"{told}; the best was {format_score(best.value)} at {best.images:,} ({direction})"


def _told(note: dict[str, Any]) -> str:
    """Return the message of an event, or its fields if it has none."""
    if "message" in note:
        return str(note["message"])
    known = ("time", "kind", "count", "first_time")
    fields = ", ".join(f"{name}: {value}" for name, value in note.items() if name not in known)
    return f"{note['kind'].replace('_', ' ')} ({fields})" if fields else str(note["kind"])


def _what(run: RunStatus) -> Iterator[tuple[str, str]]:
    data, model, objective = (run.config.get(section, {}) for section in ("data", "model", "objective"))
    edge = data.get("image_size")
    adversarial = objective.get("game") == "gan"  # Other games have losses of their own.
    yield "game", f"{objective.get('game')}" + f" with {objective.get('loss')} loss" * adversarial
    yield "model", f"{model.get('name')}, width {model.get('width')}"
    shards = data.get("shards")
    where = ", ".join(shards) if isinstance(shards, list) else shards
    yield "data", f"{where}, {edge}x{edge}x{data.get('channels')}, in batches of {data.get('batch_size')}"
    yield "folder", f"{run.place}, {format_bytes(run.bytes)}"
    if run.picture:
        yield "samples", run.picture


def _next(run: RunStatus) -> Iterator[tuple[str, str]]:
    """Yield the command that starts, resumes or extends the run; nothing while it is running."""
    verb = "tune" if run.trials else "train"
    command, settings = f"ganrun {verb} {shlex.quote(f'{run.place}/config.yaml')}", run.config["run"]
    if open_storage(f"{settings['storage']}/{settings['name']}").uri != run.place:
        storage = run.place.rpartition("/")[0]
        command += f" {shlex.quote(f'run.storage={storage}')} {shlex.quote(f'run.name={run.name}')}"  # It was moved.
    if run.state == FINISHED:
        yield "go further", f"{command} train.total_images={2 * run.total_images}"
    elif run.state == NEVER_STARTED:
        yield "start", command
    elif run.state != RUNNING:
        yield "resume", command


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M:%S")
