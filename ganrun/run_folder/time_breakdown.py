"""Seconds of a run by part, from its records (parts: telemetry/time_accounting.py)."""

from collections import Counter

from ganrun.run_folder.curve import Line, read_curve, read_events
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.records import (
    AttemptEnded,
    AttemptReserved,
    AttemptStarted,
    CommandDied,
    EventRecord,
    RunFinished,
    RunStopped,
)
from ganrun.telemetry.series import SECONDS

OTHER = "other"
"""Part for time with live workers that no record accounts for: rounds lost to a rollback or an exploit, reading a
checkpoint, the end of a failed attempt. The start of workers is in no part."""


def time_breakdown(curve: list[Line], events: list[EventRecord]) -> dict[str, float]:
    """Return the seconds of a run by part; empty before the first tick."""
    spent = Counter[str]()
    for event in events:
        if isinstance(event, AttemptEnded | RunFinished | RunStopped):
            spent.update(event.spent)
    for line in curve:
        spent.update({key.removeprefix(SECONDS.prefix): line[key] for key in line if key.startswith(SECONDS.prefix)})
    if not spent:
        return {}
    # The others belong to the next command: they are written before its workers start.
    of_workers = [event for event in events if not isinstance(event, AttemptReserved | CommandDied)]
    moments = [(event.time, isinstance(event, AttemptStarted)) for event in of_workers]
    return {**spent, OTHER: max(_up(moments + [(line["time"], False) for line in curve]) - sum(spent.values()), 0.0)}


def trials_time_breakdown(search: Storage) -> dict[str, float]:
    """Return the seconds of all trials of a search by part."""
    spent = Counter[str]()
    for name in search.list("trials"):
        trial = open_storage(f"{search.uri}/trials/{name}")
        spent.update(time_breakdown(read_curve(trial)[0], read_events(trial)[0]))
    return dict(spent)


def format_shares(spent: dict[str, float]) -> str:
    """Return the share of each part in text, largest first: `round 86.6%, score 10.5%`."""
    whole = sum(spent.values()) or 1
    ranked = sorted(spent.items(), key=lambda part: -part[1])
    return ", ".join(f"{part} {seconds / whole:.1%}" for part, seconds in ranked)


def _up(moments: list[tuple[float, bool]]) -> float:
    """Return the seconds from each start to its last record, summed over starts.

    Args:
        moments: time of each record, and whether it is a start.
    """
    seconds, begun, last = 0.0, None, 0.0
    for time, starts in sorted(moments):
        if starts:
            seconds += last - begun if begun is not None else 0.0
            begun = time
        last = time
    return seconds + (last - begun if begun is not None else 0.0)
