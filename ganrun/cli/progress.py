"""What a person sees of a run while it trains: a progress bar, or on no terminal a line a tick."""

import sys
from typing import Any

from tqdm import tqdm

from ganrun.run_folder.report import figure


class Display:
    """Shows the workers' messages on stderr and remembers the scores.

    Args:
        total_images: length of the run.
    """

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.scores: list[tuple[int, str, float]] = []
        """(images, name, value) of each score of this command."""
        self.attempts = 0
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()

    def hear(self, message: dict[str, Any]) -> None:
        """Shows one message."""
        match message["kind"]:
            case "started":
                self._started(message)
            case "restart" if message["why"]:
                self.say(f"{message['why']}; the workers are started again")
            case "images":
                if self._bar is not None:
                    self._bar.update(message["images"] - self._bar.n)
            case "tick":
                self._tick(message["images"], message["values"])
            case "score":
                self.scores.append((message["images"], message["name"], message["value"]))
                best = ", the best so far" if message["best"] else ""
                self.say(f"{message['name']} at {message['images']:,} images: {figure(message['value'])}{best}")
            case "note":
                self.say(message["text"])

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _started(self, message: dict[str, Any]) -> None:
        for fault in message["faults"]:
            self.say(f"{fault}; the checkpoint before it is taken")
        workers = f"{message['workers']} worker{'s' * (message['workers'] > 1)}"
        self.attempts += 1
        if message["before"] not in (None, message["workers"]):
            there = "there is" if message["workers"] == 1 else "there are"
            self.say(f"{there} {workers} now; going on from {message['images']:,} images")
        elif message["images"]:
            self.say(f"going on with {workers} from {message['images']:,} images")
        else:
            self.say(f"training with {workers}")
        self.close()
        self._bar = tqdm(
            total=self.total_images,
            initial=message["images"],
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def _tick(self, images: int, values: dict[str, float]) -> None:
        losses = {name[5:]: value for name, value in values.items() if name.startswith("loss/")}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        if values["nonfinite"]:
            self.say(f"{values['nonfinite']} turns before {images:,} images were not finite and were skipped")
        if self._terminal and self._bar is not None:
            self._bar.set_postfix_str(shown)
        else:
            rate = values["images_per_second"]
            left = max(self.total_images - images, 0) / rate
            minutes, seconds = divmod(round(left), 60)
            self.say(
                f"{images:,} of {self.total_images:,} images, {rate:,.0f} images/s, "
                f"losses: {shown}, {minutes}:{seconds:02} left"
            )
