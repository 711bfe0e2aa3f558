"""The host of a run's loop: storage, clock and the driver's ear, seen from one worker."""

import math
import time
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from ganrun.config.tunable import next_change
from ganrun.data.decode import RawBatch
from ganrun.data.stream import Stream
from ganrun.errors import RunError
from ganrun.evaluation.evaluator import Evaluation
from ganrun.evaluation.generated_images import Generated
from ganrun.evaluation.pictures import small_png, to_picture
from ganrun.evaluation.point_evaluator import PointEvaluation
from ganrun.rng import Draw
from ganrun.run_folder.layout import Pointer, RunFolder
from ganrun.telemetry.collapse import ADVICE
from ganrun.telemetry.protocol import PART_BYTES
from ganrun.telemetry.time_accounting import Accounts, lined, spent_on
from ganrun.training import checkpoint
from ganrun.training.checkpoint import Progress
from ganrun.training.state import Play
from ganrun.worker.async_writers import Checkpoints, Due, Lines
from ganrun.worker.channel import POLL_SECONDS, Line
from ganrun.worker.profile_rounds import profile_of
from ganrun.worker.rank_stats import OF_A_RANK, Tally
from ganrun.worker.transitions import Exploit, Leave, Turn


class WorkerHost:
    """Writes what rank 0 has to write; agrees with the other ranks on what all must know.

    Args:
        play: the game.
        folder: of the run.
        stream: where batches come from; the fingerprint of its data goes into checkpoints.
        line: to the driver.
        attempt: number of this start of the worker group.
        progress: of the attempts before.
        evaluation: scores the averaged generator; None if the config has no scores.
    """

    def __init__(
        self,
        play: Play,
        folder: RunFolder,
        stream: Stream,
        line: Line,
        attempt: int,
        progress: Progress,
        evaluation: Evaluation | PointEvaluation | None,
    ) -> None:
        self.play, self.folder, self.line, self.attempt = play, folder, line, attempt
        self.stream, self.data_fingerprint = stream, stream.data.index.fingerprint
        self.progress, self.evaluation = progress, evaluation
        self.first = play.slots.rank == 0
        self.lines: Lines | None = None
        self.checkpoints: Checkpoints | None = None
        if self.first:
            self.lines = Lines(folder)
            self.checkpoints = Checkpoints(folder, play.config.checkpoint.keep, self.lines, self.tell)
        if play.config.tune and self.checkpoints is not None:
            self.checkpoints.held = frozenset(folder.storage.list("checkpoints"))
        self.change: Exploit | Turn | Leave | None = None
        """What ends this attempt before the run's end: the same on all ranks, the next one begins with it."""
        self._ordered: Exploit | None = None
        self._leave: Leave | None = None
        self._turn = next_change(play.config, play.images)
        self._stopping = False
        self.accounts = Accounts()
        self._tally = Tally(play, stream)
        self._signs: tuple[str, ...] = ()
        """Of collapse, that hold."""
        self._score: tuple[int, dict[str, Any]] | None = None
        """The newest score, and at how many images: it belongs to the checkpoint of those alone."""
        self._best = self._to_score = False
        """Of the next checkpoint: whether it has the best score, whether a task is to score it."""
        self._metrics = f"metrics/{attempt:04d}-{play.images:012d}.jsonl"
        self._profile = profile_of(play, folder, self.tell)
        self._begun = time.monotonic()
        self._ticked, self._recorded = play.images, False

    @spent_on("telemetry")
    def should_stop(self) -> bool:
        """Rank 0 hears the driver; the others hear rank 0. Comes at the end of each round."""
        if self._profile and self._recorded:
            self._profile.round_over()
        if self.checkpoints is not None:
            self.checkpoints.raise_fault(self.play.config.checkpoint.max_age_seconds)
            self._obey(self.checkpoints)
            self.line.say("images", images=self.play.images)
        stopping, ordered, leaving = self.line.stop, self._ordered is not None, self._leave is not None
        if self.play.slots.workers > 1:
            flags = torch.tensor([stopping, ordered, leaving])  # On the CPU, so that no GPU is waited for.
            dist.broadcast(flags, 0)
            stopping, ordered, leaving = flags.tolist()
        if ordered and not stopping:
            self.change = self._agreed()
        elif leaving and not stopping and not self._done:
            self.change = self._leave or Leave(self.attempt)
        elif self._turn is not None and self.play.images >= self._turn and not stopping:
            self.change = Turn(self.attempt)
        self._stopping = stopping or self.change is not None
        return self._stopping

    def _agreed(self) -> Exploit | None:
        """Rank 0's order, on all ranks."""
        orders = [self._ordered and self._ordered._replace(attempt=self.attempt)]
        if self.play.slots.workers > 1:
            dist.broadcast_object_list(orders, 0)
        return orders[0]

    @spent_on("data")
    def next_batches(self) -> list[RawBatch]:
        """The next batch of each owned slot."""
        return self.stream.next()

    @spent_on("telemetry")
    def record(self, values: dict[str, float], signs: tuple[str, ...]) -> None:
        """A line of metrics; signs of collapse that are new are told."""
        spent, rounds = self.accounts.read(), self.play.seats[0].rounds
        seconds = sum(spent.values()) - spent.get("score", 0)  # The time that a score takes is not the round's.
        values["images_per_second"] = (self.play.images - self._ticked) / seconds
        values["data_wait_ratio"] = spent["data"] / seconds
        values["round_seconds"] = seconds / rounds
        values |= {**self._tally.read(seconds, spent["data"]), **lined(spent)}
        values |= {f"collapse_suspected/{sign}": float(sign in signs) for sign in self.play.suspicion.streaks}
        self._ticked, self._recorded = self.play.images, True
        if self.first:
            # A rank's own numbers are for the sidecar: of a thousand ranks they would be most of the file.
            kept = {name: value for name, value in values.items() if not name.startswith(OF_A_RANK)}
            self._append(self._metrics, {"images": self.play.images, "time": time.time(), **kept})
            self.line.say("tick", images=self.play.images, values=values)
            for sign in set(signs) - set(self._signs):
                message = f"collapse suspected at {self.play.images:,} images: {sign}: {ADVICE[sign]}"
                self.tell("collapse_suspected", images=self.play.images, sign=sign, message=message)
        self._signs = signs

    @spent_on("samples")
    def picture(self) -> None:
        """Samples of the averaged generator for the same latents at every tick, as PNG, a class in each column."""
        if self.lines is None:
            return
        play, name = self.play, f"samples/{self.play.images:012d}.png"
        game, count = play.game, play.config.telemetry.sample_images
        draw = Draw(play.config.run.seed, 0, 0, 0, play.device, play.dtype)
        with torch.inference_mode():
            z = game.latent.draw(draw, count, "samples/z")
            images = game.sample(play.averaged_networks, z, game.labels(0, count, play.device))
        facts = {"attempt": str(self.attempt), "images": str(play.images)}
        picture = to_picture(images, self.stream.data.index, game.classes or None, facts)
        if picture is None:
            return
        self.lines.picture(name, picture)
        diversity = float(images.double().std(0, correction=0).mean())
        shown = picture if len(picture) <= PART_BYTES else small_png(images)
        self.line.say("picture", images=play.images, png=shown, diversity=diversity)

    @spent_on("score")
    def evaluate(self) -> bool:
        """A score of the averaged generator, on all ranks together; whether it is the best so far (lower is better).

        Where tasks score, a checkpoint is due for one, but at the end: then the workers have nothing else to do. In a
        search there too: it is told of scores in the order of their images.
        """
        if self.play.config.evaluate.where == "task" and (self.play.config.tune or not self._done):
            self._to_score = self.play.images > 0
            return self._to_score
        assert self.evaluation is not None
        generated = Generated(self.play.game, self.play.averaged_networks, self.play.config.run.seed)
        score = self.evaluation.score(generated, dist.group.WORLD if self.play.slots.workers > 1 else None)
        best = self._is_best(score.value)
        self._best = self._best or best
        self._score = (self.play.images, score.to_json())
        self._tell_score(self.play.images, score.to_json(), best)
        return best

    def _obey(self, checkpoints: Checkpoints) -> None:
        """Takes the scores that came, and what the driver of a search wants."""
        for order in self.line.orders():
            if order["kind"] == "release":
                before, keep = order["before"], order["keep"]
                checkpoints.held = frozenset(name for name in checkpoints.held if name >= before or name in keep)
                continue
            if order["kind"] == "leave":
                self._leave = Leave(self.attempt, order["reason"], order["why"])
                continue
            if order["kind"] == "exploit":
                exploit = Exploit(**order["exploit"])
                self._ordered = exploit if exploit.number > self.progress.exploit else self._ordered
                continue
            pointer = checkpoints.unscored.get(order["checkpoint"])
            if pointer is None:  # Of an attempt before.
                continue
            if "why" in order:
                message = f"no score at {pointer.images:,} images: {order['why']}"
                self.tell("score_failed", images=pointer.images, message=message)
            else:
                score = order["score"]
                if best := self._is_best(score["value"]):
                    checkpoints.point_best(replace(pointer, score=score["value"]))
                self._tell_score(pointer.images, score, best)
            del checkpoints.unscored[pointer.checkpoint]  # At last: until then it is not deleted.

    def _is_best(self, value: float | None) -> bool:
        before = self.progress.best_score
        best = value is not None and math.isfinite(value) and (before is None or value < before)
        if best:
            self.progress = replace(self.progress, best_score=value)
        return best

    def _tell_score(self, images: int, score: dict[str, Any], best: bool) -> None:
        values = {score["measure"]: score["value"], **score["metrics"]}
        self._append(self._metrics, {"images": images, "time": time.time(), **values})
        if self.first:
            about = {key: score[key] for key in ("name", "value", "extractor", "samples")}
            self.line.say("score", images=images, best=best, values=values, **about)

    @property
    def _done(self) -> bool:
        return self.play.images >= self.play.config.train.total_images

    @spent_on("checkpoint")
    def save(self) -> None:
        """A checkpoint, written behind the rounds. One that cannot be written costs the run nothing but is noted."""
        if isinstance(self.change, Exploit):
            return  # What was played here is given up.
        begun = time.monotonic()
        recorder = self.play.recorder.state()
        best, to_score = self._best, self._to_score
        self._best = self._to_score = False
        if self.checkpoints is None:
            return
        if self._stopping or self._done:
            self.checkpoints.drain()  # The last one is not to be dropped for a best one that waits.
        seconds = self.progress.seconds + begun - self._begun
        progress, spare = replace(self.progress, seconds=seconds), self.checkpoints.take_spare()
        snapshot = checkpoint.snapshot(self.play, progress, recorder, spare)
        name = f"{self.play.images:012d}-{self.attempt:04d}"
        facts = {"images": self.play.images, "attempt": self.attempt, "data": self.data_fingerprint}
        scores = [self._score[1]] if self._score and self._score[0] == self.play.images else []
        pointer = Pointer(name, self.play.images, self.attempt, scores[0]["value"] if scores else None)
        facts |= {"scores": scores}
        if self.play.config.tune:
            self.checkpoints.held |= {name}
        self.checkpoints.submit(Due(snapshot, facts, pointer, best, time.monotonic() - begun, to_score))

    def leave(self) -> None:
        """Waits until what is under way is written or has failed: this attempt is over, and the run is not.

        Raises:
            RunError: another attempt has the run.
        """
        if self._profile:
            self._profile.close()
        if self.checkpoints is not None and self.lines is not None:
            if not isinstance(self.change, Turn):  # Its lines are written and closed.
                spent = self.accounts.read()
                if not isinstance(self.change, Leave):
                    del spent["round"]  # Since the last tick: given up.
                self.event("left", images=self.play.images, spent=spent)
            self.checkpoints.close()
            self.lines.close()
            self.checkpoints.raise_fault(0)

    def finish(self, ending: str | None) -> None:
        """Waits until the last checkpoint and the last lines are written; `ending` is the last event, if all is well.

        Raises:
            RunError: that checkpoint could not be written, or another attempt has the run.
        """
        if self._profile and not self._profile.close() and ending:
            self.tell("profile", message="the run ended before train.profile_rounds were over: nothing was profiled")
        if self.checkpoints is None or self.lines is None:
            return
        try:
            with self.accounts.spending("checkpoint"):
                self.checkpoints.drain()
            self.checkpoints.raise_fault(0)
            self._await_scores(self.checkpoints)
            if self.checkpoints.unsaved:
                raise RunError(
                    f"{self.checkpoints.unsaved}; the last good one stays: mend the storage and run the same command"
                )
            if ending:
                self.event(ending, images=self.play.images, spent=self.accounts.read())
        finally:
            self.lines.close()

    def _await_scores(self, checkpoints: Checkpoints) -> None:
        """Those that tasks are at, unless the run is to stop."""
        if checkpoints.unscored:
            self.line.say("last_call")
        with self.accounts.spending("score"):
            while checkpoints.unscored and not self.line.stop:
                time.sleep(POLL_SECONDS)
                self._obey(checkpoints)
        checkpoints.drain()

    def event(self, kind: str, **fields: Any) -> None:
        """A line of this attempt's events."""
        self._append(f"events/{self.attempt:04d}.jsonl", {"time": time.time(), "kind": kind, **fields}, soon=True)

    def tell(self, kind: str, **fields: Any) -> None:
        """An event, for the driver too, and what is a message also on its terminal. Called by several threads."""
        self.event(kind, **fields)
        self.line.say(kind, time=time.time(), **fields)
        if "message" in fields:
            self.line.say("note", text=fields["message"])

    def _append(self, name: str, fields: dict[str, Any], soon: bool = False) -> None:
        if self.lines is not None:
            self.lines.add(name, fields, soon)
