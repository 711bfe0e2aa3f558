"""Where a run's time went, by its records: seconds by part, as telemetry/time_accounting.py has them."""

from collections import Counter

from ganrun.run_folder.curve import Line, read_curve, read_events
from ganrun.storage import Storage, open_storage
from ganrun.telemetry.records import AttemptReserved, AttemptStarted
from ganrun.telemetry.series import SECONDS

OTHER = "other"
"""While the workers were up, what is in no line that counts: rounds that a rollback or an exploit gave up, reading a
checkpoint, the end of an attempt that failed. Starting them is not in it."""


def time_breakdown(curve: list[Line], events: list[Line]) -> dict[str, float]:
    """The seconds of a run, by part; empty if it has no whole tick yet."""
    spent = Counter[str]()
    for event in events:
        spent.update(event.get("spent", {}))
    for line in curve:
        spent.update({key.removeprefix(SECONDS.prefix): line[key] for key in line if key.startswith(SECONDS.prefix)})
    if not spent:
        return {}
    moments = [(event["time"], event["kind"]) for event in events] + [(line["time"], "metrics") for line in curve]
    return {**spent, OTHER: max(_up(moments) - sum(spent.values()), 0.0)}


def trials_time_breakdown(search: Storage) -> dict[str, float]:
    """Those of all trials of a search."""
    spent = Counter[str]()
    for name in search.list("trials"):
        trial = open_storage(f"{search.uri}/trials/{name}")
        spent.update(time_breakdown(read_curve(trial)[0], read_events(trial)[0]))
    return dict(spent)


def format_shares(spent: dict[str, float]) -> str:
    """Each part's share of the time, the largest first."""
    whole = sum(spent.values()) or 1
    ranked = sorted(spent.items(), key=lambda part: -part[1])
    return ", ".join(f"{part} {seconds / whole:.1%}" for part, seconds in ranked)


def _up(moments: list[tuple[float, str]]) -> float:
    """From each start to the last that was heard of it."""
    seconds, begun, last = 0.0, None, 0.0
    for time, kind in sorted(moments):
        if kind == AttemptStarted.kind:
            seconds += last - begun if begun is not None else 0.0
            begun = time
        if kind != AttemptReserved.kind:  # That is the next one's, before it starts.
            last = time
    return seconds + (last - begun if begun is not None else 0.0)
