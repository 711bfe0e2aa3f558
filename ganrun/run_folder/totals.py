"""History of a run from its folder, for the driver that resumes it."""

import itertools
from collections import Counter

from ganrun.run_folder.curve import METRICS_NAME, Line, course_of, read_curve, read_events, read_lines
from ganrun.storage import Storage
from ganrun.telemetry import series as metrics
from ganrun.telemetry.messages import FAILURE, RESUME
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.telemetry.records import AttemptStarted
from ganrun.telemetry.state import COUNTED, RunHistory, point, thinned

COUNTER_KEYS = {record.kind: counter.key for record, counter in COUNTED.items()}
"""Key of the counter of each kind of events that are counted."""
FIRST_PICTURE = "samples/000000000000.png"


def read_history(storage: Storage) -> RunHistory:
    """Return the history of a run. Counters include images that a failure lost and that were shown again."""
    names = storage.list("metrics")
    if not names:
        return RunHistory()
    totals = Counter[str]()
    for name in names:
        if match := METRICS_NAME.fullmatch(name):
            totals += _totals(read_lines(storage, f"metrics/{name}"), int(match["start_images"]))
    events, _ = read_events(storage)
    totals.update(COUNTER_KEYS[event["kind"]] for event in events if event["kind"] in COUNTER_KEYS)
    course = course_of(events)
    for before, event in itertools.pairwise(course):
        if event["kind"] == AttemptStarted.kind:
            died = event.get("reason") or FAILURE
            totals[metrics.RESTARTS.of(died if before["kind"] == AttemptStarted.kind else RESUME)] += 1
    points = [point(line["images"], line["time"], line) for line in thinned(read_curve(storage)[0])]
    pictures = storage.list("samples")
    picture = storage.read(FIRST_PICTURE) if FIRST_PICTURE.rpartition("/")[2] in pictures else None
    if picture and len(picture) > PART_BYTES:
        picture = None
    return RunHistory(dict(totals), points, course[-1]["kind"] if course else None, picture)


def _totals(lines: list[Line], start: int) -> Counter[str]:
    """Return the counters of one attempt.

    Args:
        lines: its metrics.
        start: images shown at its start.
    """
    totals = Counter[str]({metrics.IMAGES_SHOWN.key: max([line["images"] for line in lines], default=start) - start})
    for line in lines:
        totals.update({name: value for name, value in line.items() if metrics.is_summed(name) and value})
    return totals
