"""Summary of a search in words: a line per record, and the table at its end."""

import math
import statistics
from typing import Any

from ganrun.telemetry.messages import SearchEnded, SearchRecord, TrialExploit, TrialReport
from ganrun.tuning.population import Population


def describe_record(record: SearchRecord) -> str:
    """Describe a line of search.jsonl."""
    match record:
        case TrialReport():
            score = "no score" if record.score is None else f"{record.score:.4g}"
            return f"{record.images:>11,} images  trial {record.trial}  score {score}"
        case TrialExploit(before=before, after=after):
            moved = ", ".join(f"{key} {_figure(before[key])} -> {_figure(after[key])}" for key in after)
            return f"{record.images:>11,} images  trial {record.trial} continues from a copy of {record.donor}: {moved}"
        case SearchEnded(best=best, score=score) if score:
            values = {score["name"]: score["value"], **score["metrics"]}
            told = ", ".join(f"{name} {_figure(value)}" for name, value in values.items())
            return f"the best checkpoint, of trial {best}: {told}"
        case _:
            return ""


def table(population: Population) -> str:
    """Return a table of the trials, best first, with final hyper-parameters; for a seed sweep, mean and deviation."""
    keys = sorted(population.tune.mutations)
    heading = ["TRIAL", "SCORE", "BEST", "AT", "EXPLOITS", "FROM", *(_short(key, keys) for key in keys)]
    rows = [heading]
    for each in population.standings():
        lineage = population.lineage(each.trial)
        ancestors = " < ".join(segment.trial for segment in reversed(lineage[:-1])) or "-"
        rows.append(
            [
                each.trial,
                _figure(each.last.score) if each.last else "-",
                _figure(each.best.score) if each.best else "-",
                f"{each.best.images:,}" if each.best else "-",
                str(each.exploits),
                ancestors,
                *(_figure(population.values[each.trial][key]) for key in keys),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if population.tune.method == "seeds" and (spread := score_spread(population)):
        lines.append(f"mean {spread[0]:.4g}, standard deviation {spread[1]:.4g} over {spread[2]} seeds")
    return "\n".join(lines)


def score_spread(population: Population) -> tuple[float, float, int] | None:
    """Return mean, (n - 1) standard deviation and number of the trials' newest scores; None for fewer than two."""
    scores = [
        each.last.score
        for each in population.standings()
        if each.last and each.last.score is not None and math.isfinite(each.last.score)
    ]
    return (statistics.mean(scores), statistics.stdev(scores), len(scores)) if len(scores) > 1 else None


def _short(key: str, keys: list[str]) -> str:
    """Return the shortest end of a key that distinguishes it from the others."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if sum(other.endswith(f".{end}") for other in keys) == 1:
            return end
    return key


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
