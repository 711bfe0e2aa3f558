"""Progress of a training run on stderr: a progress bar in a terminal, else a line per tick."""

import sys
from typing import Any

from tqdm import tqdm

from ganrun.run_folder.report import format_score


class ProgressDisplay:
    """Shows events of the workers and records scores.

    Args:
        total_images: length of the run, `train.total_images`.
    """

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.scores: list[tuple[int, str, float]] = []
        """(images, name, value) of each score since the command started."""
        self.attempts = 0
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()

    def handle(self, event: dict[str, Any]) -> None:
        """Show one event, see `worker/channel.py`."""
        match event["kind"]:
            case "started":
                self._started(event)
            case "restart" if event["why"]:
                self.write_line(f"{event['why']}; restarting the workers")
            case "images":
                if self._bar is not None:
                    self._bar.update(event["images"] - self._bar.n)
            case "tick":
                self._tick(event["images"], event["values"])
            case "score":
                self.scores.append((event["images"], event["name"], event["value"]))
                best = ", the best so far" if event["best"] else ""
                self.write_line(f"{event['name']} at {event['images']:,} images: {format_score(event['value'])}{best}")
            case "note":
                self.write_line(event["text"])

    def write_line(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _started(self, event: dict[str, Any]) -> None:
        for fault in event["faults"]:
            self.write_line(f"{fault}; falling back to the checkpoint before it")
        workers = f"{event['workers']} worker{'s' * (event['workers'] > 1)}"
        self.attempts += 1
        if event["before"] not in (None, event["workers"]):
            there = "there is" if event["workers"] == 1 else "there are"
            self.write_line(f"{there} {workers} now; resuming from {event['images']:,} images")
        elif event["images"]:
            self.write_line(f"resuming with {workers} from {event['images']:,} images")
        else:
            self.write_line(f"training with {workers}")
        self.close()
        self._bar = tqdm(
            total=self.total_images,
            initial=event["images"],
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def _tick(self, images: int, values: dict[str, float]) -> None:
        losses = {name[5:]: value for name, value in values.items() if name.startswith("loss/")}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        if values["nonfinite"]:
            self.write_line(f"skipped {values['nonfinite']} turns before {images:,} images: not finite")
        if self._terminal and self._bar is not None:
            self._bar.set_postfix_str(shown)
        else:
            rate = values["images_per_second"]
            left = max(self.total_images - images, 0) / rate
            minutes, seconds = divmod(round(left), 60)
            self.write_line(
                f"{images:,} of {self.total_images:,} images, {rate:,.0f} images/s, "
                f"losses: {shown}, {minutes}:{seconds:02} left"
            )
