"""What the workers of a run wrote down (`noting.py`), and what of it counts."""

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

from ganrun.config.schema import Config
from tests.keys import History

WRITTEN_SECONDS = 5
"""A checkpoint that is due is in writing for so long at most."""


class Note(NamedTuple):
    """A slot's samples of a turn."""

    attempt: int
    rank: int
    host: str
    time: float
    images: int
    slot: int
    keys: list[str]


def read_notes(folder: Path) -> list[Note]:
    """Of all workers of all attempts, in the order of time."""
    notes = []
    for path in folder.glob("*"):
        attempt, rank = map(int, path.name.split("-"))
        # A worker that was killed while it wrote leaves a last line without its end.
        for line in path.read_text().split("\n")[:-1]:
            notes.append(Note(attempt, rank, **json.loads(line)))
    return sorted(notes, key=lambda note: note.time)


def what_counts(notes: list[Note]) -> History:
    """Of each attempt what was before the start of those after it."""
    starts = _starts(notes)
    history: History = {}
    for note in notes:
        if all(note.images < start for attempt, start in starts.items() if attempt > note.attempt):
            assert (note.images, note.slot) not in history
            history[note.images, note.slot] = note.keys
    return history


def recomputed(notes: list[Note], config: Config) -> int:
    """Images that were shown again: at each start at most those of one interval of checkpoints.

    A little more, if the fault met the next checkpoint in writing.
    """
    again = 0
    for (before, _), (_, start) in itertools.pairwise(_starts(notes).items()):
        shown = [note for note in notes if note.attempt == before]
        late = [note.time for note in shown if note.images >= start + config.checkpoint.every_images]
        assert not late or max(late) - min(late) < WRITTEN_SECONDS
        again += max(0, max(note.images for note in shown) + config.data.batch_size - start)
    return again


def standstill(notes: list[Note], faults: list[float]) -> float | None:
    """Seconds without a round, of each fault the longest time until the next fault, on average over the faults."""
    rounds = list(itertools.pairwise(note.time for note in notes))
    worst = {
        max((gap for gap in rounds if gap[1] > fault and gap[0] < following), key=lambda gap: gap[1] - gap[0])
        for fault, following in itertools.pairwise([*faults, math.inf])
    }
    return sum(after - before for before, after in worst) / len(faults) if faults else None


def _starts(notes: list[Note]) -> dict[int, int]:
    """The images that each attempt went on from."""
    attempts = sorted({note.attempt for note in notes})
    return {each: min(note.images for note in notes if note.attempt == each) for each in attempts}
