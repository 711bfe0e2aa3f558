"""The host of a run's loop: storage, clock and the driver's ear, seen from one worker."""

import math
import time
from typing import Any

import torch
import torch.distributed as dist

from ganrun import checkpoint
from ganrun.checkpoint import Progress
from ganrun.data.index import DataSet
from ganrun.distributed.line import Line
from ganrun.evaluation.evaluation import Evaluation
from ganrun.evaluation.generated import Generated
from ganrun.picture import to_png
from ganrun.play import Play
from ganrun.rng import Draw
from ganrun.run_folder import Pointer, RunFolder


class WorkerHost:
    """Writes what rank 0 has to write; agrees with the other ranks on what all must know.

    Args:
        play: the game.
        folder: of the run.
        data: whose fingerprint goes into checkpoints.
        line: to the driver.
        attempt: number of this start of the worker group.
        progress: of the attempts before.
        evaluation: scores the averaged generator; None if the config has no scores.
    """

    def __init__(
        self,
        play: Play,
        folder: RunFolder,
        data: DataSet,
        line: Line,
        attempt: int,
        progress: Progress,
        evaluation: Evaluation | None,
    ) -> None:
        self.play, self.folder, self.line, self.attempt = play, folder, line, attempt
        self.data_fingerprint = data.index.fingerprint
        self.progress, self.evaluation = progress, evaluation
        self.first = play.slots.rank == 0
        self.unsaved: str | None = None
        """What went wrong with the last save, if it failed."""
        self.wait_seconds = 0.0
        """Time spent waiting for data since the last tick."""
        self._score: tuple[int, dict[str, Any]] | None = None
        """The newest score, and at how many images: it belongs to the checkpoint of those alone."""
        self._metrics = f"metrics/{attempt:04d}-{play.images:012d}.jsonl"
        self._begun = time.monotonic()
        self._ticked = (time.monotonic(), play.images)

    def should_stop(self) -> bool:
        """Rank 0 hears the driver; the others hear rank 0."""
        if self.first:
            self.line.say("images", images=self.play.images)
        if self.play.slots.workers == 1:
            return self.line.stop
        flag = torch.tensor([self.line.stop])  # On the CPU, so that no GPU is waited for.
        dist.broadcast(flag, 0)
        return bool(flag)

    def record(self, values: dict[str, float]) -> None:
        """A line of metrics."""
        now, (before, images) = time.monotonic(), self._ticked
        values["images_per_second"] = (self.play.images - images) / (now - before)
        values["data_wait_ratio"] = self.wait_seconds / (now - before)
        self._ticked, self.wait_seconds = (now, self.play.images), 0.0
        if self.first:
            self._append(self._metrics, {"images": self.play.images, "time": time.time(), **values})
            self.line.say("tick", images=self.play.images, values=values)

    def picture(self) -> None:
        """Samples of the averaged generator for the same latents at every tick, as PNG."""
        if not self.first:
            return
        play, name = self.play, f"samples/{self.play.images:012d}.png"
        count, latent_size = play.config.telemetry.sample_images, play.game.latent_size
        draw = Draw(play.config.run.seed, 0, 0, 0, play.device, play.dtype)
        with torch.inference_mode():
            z = draw.normal(count, latent_size, purpose="samples/z")
            images = play.game.sample(play.averaged_networks, z)
        try:
            self.folder.storage.write(name, to_png(images))
        except OSError as error:
            self._note("picture_failed", f"{name} could not be written: {error}")

    def evaluate(self) -> bool:
        """A score of the averaged generator, on all ranks together; whether it is the best so far (lower is better)."""
        assert self.evaluation is not None
        begun = time.monotonic()
        generated = Generated(self.play.game, self.play.averaged_networks, self.play.config.run.seed)
        score = self.evaluation.score(generated, dist.group.WORLD if self.play.slots.workers > 1 else None)
        ticked, images = self._ticked  # The time that a score takes is not the round's.
        self._ticked = (ticked + time.monotonic() - begun, images)
        before = self.progress.best_score
        best = math.isfinite(score.value) and (before is None or score.value < before)
        if best:
            self.progress = Progress(score.value, self.progress.seconds)
        self._score = (self.play.images, score.to_json())
        if self.first:
            line = {"images": self.play.images, "time": time.time(), **score.values()}
            self._append(self._metrics, line)
            self.line.say("score", images=self.play.images, name=score.name, value=score.value, best=best)
        return best

    def save(self, best: bool) -> None:
        """A checkpoint. One that cannot be written costs the run nothing but is noted."""
        recorder = self.play.recorder.state()
        if not self.first:
            return
        seconds = self.progress.seconds + time.monotonic() - self._begun
        files = checkpoint.snapshot(self.play, Progress(self.progress.best_score, seconds), recorder)
        name = f"{self.play.images:012d}-{self.attempt:04d}"
        facts = {"images": self.play.images, "attempt": self.attempt, "data": self.data_fingerprint}
        scores = [self._score[1]] if self._score and self._score[0] == self.play.images else []
        try:
            checkpoint.write(self.folder, name, files, facts | {"scores": scores})
            pointer = Pointer(name, self.play.images, self.attempt, scores[0]["value"] if scores else None)
            checkpoint.make_visible(self.folder, pointer, best)
            self.unsaved = None
        except OSError as error:
            self.unsaved = f"checkpoint {name} could not be written: {error.strerror or error}"
            self._note("checkpoint_failed", self.unsaved)
            return
        try:
            checkpoint.delete_old(self.folder, self.play.config.checkpoint.keep)
        except OSError as error:
            self._note("delete_failed", f"an old checkpoint could not be deleted: {error.strerror or error}")

    def event(self, kind: str, **fields: Any) -> None:
        """A line of this attempt's events."""
        self._append(f"events/{self.attempt:04d}.jsonl", {"time": time.time(), "kind": kind, **fields})

    def _note(self, kind: str, text: str) -> None:
        self.event(kind, images=self.play.images, message=text)
        self.line.say("note", text=text)

    def _append(self, name: str, fields: dict[str, Any]) -> None:
        """Records are for people: that one cannot be written stops no run."""
        try:
            self.folder.append_line(name, fields)
        except OSError as error:
            self.line.say("note", text=f"{name} could not be written: {error.strerror or error}")
