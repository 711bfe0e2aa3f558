"""Progress of a training run on stderr: a progress bar in a terminal, else a line per tick."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from ganrun.run_folder.report import format_score
from ganrun.telemetry.baselines import Comparison, compare
from ganrun.telemetry.messages import Event, Note, Progress, Restart, ScoreTaken, Tick, WorkersStarted
from ganrun.telemetry.series import IMAGES_PER_SECOND, LOSS, NONFINITE


class ProgressDisplay:
    """Shows events of the workers and records scores.

    Args:
        total_images: length of the run, `train.total_images`.
    """

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.scores: list[tuple[int, str, float | None]] = []
        """(images, name, value) of each score since the command started."""
        self.attempts = 0
        self.comparisons: list[Comparison] = []
        """The newest scores beside their best baselines."""
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()

    def handle(self, event: Event) -> None:
        """Show one event."""
        match event:
            case WorkersStarted():
                self._started(event)
            case Restart(why=why) if why:
                self.write_line(f"{why}; restarting the workers")
            case Progress(images) if self._bar is not None:
                self._bar.update(images - self._bar.n)
            case Tick(images, values):
                self._tick(images, values)
            case ScoreTaken(images, name, value):
                self.scores.append((images, name, value))
                followed = event.followed
                best = ", the best so far" if event.best else ""
                self.comparisons = compare(event.values)
                shown = "".join(f"; {each}" for each in self.comparisons)
                if followed not in ("distance", *(each.score for each in self.comparisons)):
                    shown = f"; {followed}: {format_score(event.values.get(followed))}{shown}"
                self.write_line(f"{name} at {images:,} images: {format_score(value)}{shown}{best}")
            case Note(text):
                self.write_line(text)
            case _:
                pass  # Not shown.

    def write_line(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _started(self, event: WorkersStarted) -> None:
        for fault in event.faults:
            self.write_line(f"{fault}; falling back to the checkpoint before it")
        workers = f"{event.workers} worker{'s' * (event.workers > 1)}"
        self.attempts += 1
        if event.before not in (None, event.workers):
            there = "there is" if event.workers == 1 else "there are"
            self.write_line(f"{there} {workers} now; resuming from {event.images:,} images")
        elif event.images:
            self.write_line(f"resuming with {workers} from {event.images:,} images")
        else:
            self.write_line(f"training with {workers}")
        self.close()
        self._bar = tqdm(
            total=self.total_images,
            initial=event.images,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def _tick(self, images: int, values: Mapping[str, float]) -> None:
        losses = [(key.removeprefix(LOSS.prefix), values[key]) for key in values if key.startswith(LOSS.prefix)]
        shown = ", ".join(f"{name} {value:.3f}" for name, value in losses)
        if skipped := values[NONFINITE.key]:
            self.write_line(f"skipped {skipped} turns before {images:,} images: not finite")
        if self._terminal and self._bar is not None:
            self._bar.set_postfix_str(shown)
        else:
            rate = values[IMAGES_PER_SECOND.key]
            left = max(self.total_images - images, 0) / rate
            minutes, seconds = divmod(round(left), 60)
            self.write_line(
                f"{images:,} of {self.total_images:,} images, {rate:,.0f} images/s, "
                f"losses: {shown}, {minutes}:{seconds:02} left"
            )
