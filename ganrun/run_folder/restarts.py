"""Counts how often a run was started again, and why, from its events."""

import itertools
from collections import Counter
from collections.abc import Iterable

from ganrun.telemetry.messages import FAILURE, PREEMPTION, RESIZE, RESUME
from ganrun.telemetry.records import (
    AttemptEnded,
    AttemptReserved,
    AttemptStarted,
    CommandDied,
    EventRecord,
    Exploited,
    RolledBack,
    RunFinished,
    RunStopped,
    ScheduleStepped,
)

Attempt = list[EventRecord]


def count_restarts(events: Iterable[EventRecord]) -> Counter[str]:
    """Return the number of starts after the first by reason, one of RESTART_REASONS.

    Starts that were killed before their attempt began count too: a killed command leaves its lease, which the next one
    records, and the next start of the workers names the failures since the command began. An attempt that continues
    another in the same processes, after a rollback, a schedule step or an exploit, is no start.
    """
    attempts, counts, known = _split(events), Counter[str](), 0
    for before, after in itertools.pairwise(attempts):
        start = next((event for event in after if isinstance(event, AttemptStarted)), None)
        if start is None and _has(after, RolledBack, ScheduleStepped, Exploited):
            continue
        deaths, stopped = _deaths(before), _has(before, RunFinished, RunStopped)
        counts[RESUME] += stopped
        if planned := start is not None and start.reason in (PREEMPTION, RESIZE):
            counts[str(start.reason)] += 1
        if deaths or stopped or (start and start.reason is None):
            known = 0  # Another command, whose failures begin at 0.
        told = deaths + (max(start.failures - known, 0) if start else 0)
        failures = max(told, int(_is_open(before) and not planned))
        known = start.failures if start else known + failures - deaths
        counts[FAILURE] += failures
    counts[FAILURE] += 0 if _has(attempts[-1], RunFinished) else _deaths(attempts[-1])
    return +counts


def _split(events: Iterable[EventRecord]) -> list[Attempt]:
    """Split events by attempt. The first item has what was written before the first attempt."""
    attempts: list[Attempt] = [[]]
    for event in events:
        if isinstance(event, AttemptReserved):
            attempts.append([])
        attempts[-1].append(event)
    return attempts


def _is_open(attempt: Attempt) -> bool:
    """Return True if an attempt was neither finished, stopped nor continued by another."""
    return _has(attempt, AttemptReserved) and not _has(attempt, RunFinished, RunStopped, AttemptEnded)


def _deaths(attempt: Attempt) -> int:
    return sum(isinstance(event, CommandDied) for event in attempt)


def _has(attempt: Attempt, *kinds: type[EventRecord]) -> bool:
    return any(isinstance(event, kinds) for event in attempt)
