"""Where a run's time went, by its records."""

from typing import NamedTuple

from ganrun.records.lines import METRICS_NAME, read_events, read_lines
from ganrun.storage import Storage, open_storage


class Spent(NamedTuple):
    """Seconds that a run's workers were up; what a start of theirs takes is not counted."""

    all: float
    rounds: float
    """Those of which the run still has the images: what a rollback or an exploit gave up is not counted."""
    scores: float
    """That rounds waited for."""

    def words(self) -> str:
        """The shares of it all."""
        rounds, scores = (100 * part / self.all for part in (self.rounds, self.scores))
        return f"{rounds:.1f} % rounds, {scores:.1f} % scores, {max(100 - rounds - scores, 0):.1f} % other"


def spent(storage: Storage) -> Spent | None:
    """The time of a run, or of all trials of a search; None if it has no whole tick yet."""
    places = [open_storage(f"{storage.uri}/trials/{name}") for name in storage.list("trials")] or [storage]
    found = [_spent(place) for place in places]
    total = Spent(*(sum(parts) for parts in zip(*found, strict=True)))
    return total if total.all and total.rounds else None


def _spent(storage: Storage) -> Spent:
    kept: list[tuple[float, float]] = []
    scores, moments = 0.0, [(event["time"], event["kind"]) for event in read_events(storage)[0]]
    for name in storage.list("metrics"):
        if match := METRICS_NAME.fullmatch(name):
            before = start = int(match["start_images"])
            kept = [(images, seconds) for images, seconds in kept if images <= start]
            for line in read_lines(storage, f"metrics/{name}"):
                moments.append((line["time"], "metrics"))
                scores += line.get("score_seconds") or 0.0
                if rate := line.get("images_per_second"):
                    kept.append((line["images"], (line["images"] - before) / rate))
                    before = line["images"]
    return Spent(_up(moments), sum(seconds for _, seconds in kept), scores)


def _up(moments: list[tuple[float, str]]) -> float:
    """From each start to the last that was heard of it."""
    seconds, begun, last = 0.0, None, 0.0
    for time, kind in sorted(moments):
        if kind == "start":
            seconds += last - begun if begun is not None else 0.0
            begun = time
        if kind != "attempt":  # That is the next one's, before it starts.
            last = time
    return seconds + (last - begun if begun is not None else 0.0)
