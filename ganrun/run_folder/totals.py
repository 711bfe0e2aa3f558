"""History of a run from its folder, for the driver that resumes it."""

from collections import Counter

from ganrun.run_folder.curve import METRICS_NAME, Line, course_of, read_curve, read_events, read_lines
from ganrun.run_folder.restarts import count_restarts
from ganrun.storage import Storage
from ganrun.telemetry import series as metrics
from ganrun.telemetry.messages import FAILURE, RESUME
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.telemetry.records import AttemptStarted, CommandDied
from ganrun.telemetry.state import COUNTED, RunHistory, point, thinned

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
    totals.update(COUNTED[type(event)].key for event in events if type(event) in COUNTED)
    restarts, course = count_restarts(events), course_of(events)
    reason = None if not course else FAILURE if isinstance(course[-1], AttemptStarted) else RESUME
    if reason == FAILURE and isinstance(events[-1], CommandDied):
        restarts[FAILURE] -= 1  # `RunState` counts the start of this command.
    totals.update({metrics.RESTARTS.of(each): count for each, count in restarts.items() if count})
    points = [point(line["images"], line["time"], line) for line in thinned(read_curve(storage)[0])]
    pictures = storage.list("samples")
    picture = storage.read(FIRST_PICTURE) if FIRST_PICTURE.rpartition("/")[2] in pictures else None
    if picture and len(picture) > PART_BYTES:
        picture = None
    return RunHistory(dict(totals), points, reason, picture)


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
