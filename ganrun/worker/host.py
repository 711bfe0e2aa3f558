"""Host of the training loop in one worker: storage, clock and channel to the driver."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import torch.distributed as dist

from ganrun.config.run_spec import RunSpec
from ganrun.config.tunable import next_schedule_step
from ganrun.data.decode import RawBatch
from ganrun.data.stream import Stream
from ganrun.errors import RunError
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.evaluation.point_evaluator import PointEvaluator
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.telemetry import messages, records
from ganrun.telemetry.series import COLLAPSE_SUSPECTED, of_a_rank
from ganrun.telemetry.symptoms import ADVICE
from ganrun.telemetry.time_accounting import TimeAccounting, as_metrics, timed_as
from ganrun.training.checkpoint import RunProgress, take_snapshot
from ganrun.training.state import TrainingState
from ganrun.worker.channel import POLL_SECONDS, Channel
from ganrun.worker.checkpoint_writer import CheckpointWriter, PendingCheckpoint
from ganrun.worker.line_writer import LineWriter
from ganrun.worker.profile_rounds import round_profiler
from ganrun.worker.rank_stats import RankStats
from ganrun.worker.sample_picture import draw_samples, show
from ganrun.worker.transitions import Drain, ScheduleStep


class WorkerHost:
    """Host of the loop: rank 0 writes and talks to the driver, all ranks agree on stops and transitions.

    Args:
        spec: the resolved run.
        state: training state.
        folder: the run's folder.
        stream: stream of batches; facts about its data go into checkpoints.
        channel: channel to the driver.
        attempt: number of this attempt.
        progress: progress of the attempts before.
        evaluator: evaluator of the EMA generator; None if the config has no scores.
        pairs: samples that conditions are made of; None for labels and unconditional games.
    """

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        folder: RunFolder,
        stream: Stream,
        channel: Channel,
        attempt: int,
        progress: RunProgress,
        evaluator: Evaluator | PointEvaluator | None,
        pairs: PairedSamples | None = None,
    ) -> None:
        self.spec, self.state, self.folder, self.channel, self.attempt = spec, state, folder, channel, attempt
        self.stream, self.data_facts = stream, stream.data.index.facts
        self.progress, self.evaluator, self.best, self.pairs = progress, evaluator, spec.evaluate.best, pairs
        self.is_rank_0 = state.slots.rank == 0
        self.line_writer: LineWriter | None = None
        self.checkpoint_writer: CheckpointWriter | None = None
        if self.is_rank_0:
            self.line_writer = LineWriter(folder)
            self.checkpoint_writer = CheckpointWriter(folder, spec.checkpoint.keep, self.line_writer, self.emit_event)
        if spec.tune and self.checkpoint_writer is not None:
            self.checkpoint_writer.held = frozenset(folder.storage.list("checkpoints"))
        self.transition: messages.Exploit | ScheduleStep | Drain | None = None
        """Transition that ends this attempt before the run ends, or None; the same on all ranks."""
        self._exploit_command: messages.Exploit | None = None
        self._drain: Drain | None = None
        self._next_schedule_step = next_schedule_step(spec, state.images)
        self._stopping = False
        self.time_accounting = TimeAccounting()
        self._rank_stats = RankStats(state, stream)
        self._symptoms: tuple[str, ...] = ()
        """Current symptoms of collapse."""
        self._score: tuple[int, dict[str, Any]] | None = None
        """Images and content of the newest score. It belongs only to the checkpoint after that many images."""
        self._best = self._to_score = False
        """State of the next checkpoint: it has the best score; an evaluation task is to score it."""
        self._metrics = f"metrics/{attempt:04d}-{state.images:012d}.jsonl"
        self._profiler = round_profiler(spec, state, folder, self.emit_event)
        self._begun, self._recorded = time.monotonic(), False

    @timed_as("telemetry")
    def should_stop(self) -> bool:
        """Return True if this attempt is to end; all ranks agree. Rank 0 reads the commands. Called each round."""
        if self._profiler and self._recorded:
            self._profiler.end_round()
        if self.checkpoint_writer is not None:
            self.checkpoint_writer.raise_fault(self.spec.checkpoint.max_age_seconds)
            self._execute_commands(self.checkpoint_writer)
            self.channel.send(messages.Progress(self.state.images))
        stopping, exploiting, draining = self.state.slots.flags_from_rank_0(
            self.channel.stop, self._exploit_command is not None, self._drain is not None
        )
        if exploiting and not stopping:
            exploit = self._exploit_command and replace(self._exploit_command, attempt=self.attempt)
            self.transition = self.state.slots.from_rank_0(exploit)
        elif draining and not stopping and not self._done:
            self.transition = self._drain or Drain(self.attempt)
        elif self._next_schedule_step is not None and self.state.images >= self._next_schedule_step and not stopping:
            self.transition = ScheduleStep(self.attempt)
        self._stopping = stopping or self.transition is not None
        return self._stopping

    @timed_as("data")
    def next_batches(self) -> list[RawBatch]:
        """Return the next batch of each owned slot."""
        return self.stream.next()

    @timed_as("telemetry")
    def record(self, values: dict[str, float], symptoms: tuple[str, ...]) -> None:
        """Write a line of metrics and send it to the driver; report new symptoms of collapse."""
        spent = self.time_accounting.read()
        values |= {**self._rank_stats.read(spent), **as_metrics(spent)}
        streaks = self.state.collapse_detector.streaks
        values |= {COLLAPSE_SUSPECTED.of(symptom): float(symptom in symptoms) for symptom in streaks}
        self._recorded = True
        if self.is_rank_0:
            # Per-rank values go only to the sidecar: with a thousand ranks they would be most of the file.
            images, kept = self.state.images, {name: value for name, value in values.items() if not of_a_rank(name)}
            self._append(self._metrics, {"images": images, "time": time.time(), **kept})
            self.channel.send(messages.Tick(images, values))
            for symptom in set(symptoms) - set(self._symptoms):
                message = f"collapse suspected at {images:,} images: {symptom}: {ADVICE[symptom]}"
                self.emit_event(records.CollapseSuspected(images=images, symptom=symptom, message=message))
        self._symptoms = symptoms

    @timed_as("samples")
    def picture(self) -> None:
        """Draw samples of the EMA networks. Slow ones are drawn by tasks that score, and here only at the end."""
        if self.line_writer and (self._done or not self.state.game.samples_slowly):
            generated = GeneratedImages(self.state.game, self.state.ema_networks, self.state.seed, pairs=self.pairs)
            count, about = self.spec.telemetry.sample_images, (self.attempt, self.state.images)
            index, target = self.stream.data.index, self.spec.objective.target
            show(draw_samples(generated, count, index, *about, target), self.line_writer, self.channel)

    @timed_as("score")
    def evaluate(self) -> bool:
        """Score the EMA generator on all ranks. Return True if a checkpoint is due: the score is the best so far.

        Where tasks score, a checkpoint is due for one, but at the end: then the workers have nothing else to do. In a
        search there too: it is told of scores in the order of their images.
        """
        if self.spec.evaluate.where == "task" and (self.spec.tune or not self._done):
            self._to_score = self.state.images > 0
            return self._to_score
        assert self.evaluator is not None
        generated = GeneratedImages(self.state.game, self.state.ema_networks, self.state.seed, pairs=self.pairs)
        group = dist.group.WORLD if self.state.slots.workers > 1 else None
        found = self.evaluator.score(generated, group).to_json()
        best = self._is_best(self.best.value_in(found))
        self._best, self._score = self._best or best, (self.state.images, found)
        self._record_score(self.state.images, found, best)
        return best

    def _execute_commands(self, checkpoint_writer: CheckpointWriter) -> None:
        for command in self.channel.commands():
            match command:
                case messages.ReleaseCheckpoints(before, keep):
                    held = (name for name in checkpoint_writer.held if name >= before or name in keep)
                    checkpoint_writer.held = frozenset(held)
                case messages.DrainWorkers(reason, why):
                    self._drain = Drain(self.attempt, reason, why)
                case messages.Exploit(number):
                    self._exploit_command = command if number > self.progress.exploit else self._exploit_command
                case messages.ScoreFound():
                    self._take_score(command, checkpoint_writer)
                case _:
                    assert_never(command)

    def _take_score(self, found: messages.ScoreFound, checkpoint_writer: CheckpointWriter) -> None:
        pointer = checkpoint_writer.unscored.get(found.checkpoint)
        if pointer is None:  # Wanted by an earlier attempt.
            return
        if found.score is None:
            message = f"no score at {pointer.images:,} images: {found.why}"
            self.emit_event(records.ScoreFailed(images=pointer.images, message=message))
        else:
            value = self.best.value_in(found.score)
            if best := self._is_best(value):
                checkpoint_writer.point_best(replace(pointer, score=value))
            self._record_score(pointer.images, found.score, best)
        show(found.picture, self.line_writer, self.channel)
        del checkpoint_writer.unscored[pointer.checkpoint]  # Last: until then the checkpoint is not deleted.

    def _is_best(self, value: float | None) -> bool:
        if best := self.best.is_better(value, self.progress.best_score):
            self.progress = replace(self.progress, best_score=value)
        return best

    def _record_score(self, images: int, score: Mapping[str, Any], best: bool) -> None:
        values = {score["measure"]: score["value"], **score["metrics"]}
        self._append(self._metrics, {"images": images, "time": time.time(), **values})
        if self.is_rank_0:
            about = {key: score[key] for key in ("name", "value", "extractor", "samples")}
            about |= {"best": best, "followed": self.best.metric}
            self.channel.send(messages.ScoreTaken(images=images, values=values, **about))

    @property
    def _done(self) -> bool:
        return self.state.images >= self.spec.train.total_images

    @timed_as("checkpoint")
    def save(self) -> None:
        """Copy the state; a thread writes it. A failed write is reported and does not stop the run."""
        if isinstance(self.transition, messages.Exploit):
            return  # The state of this attempt is discarded.
        begun = time.monotonic()
        state_dict = self.state.state_dict()  # Collective: gathers the tables of the recorder.
        best, to_score = self._best, self._to_score
        self._best = self._to_score = False
        if self.checkpoint_writer is None:
            return
        if self._stopping or self._done:
            self.checkpoint_writer.drain()  # The last checkpoint must not be dropped for a waiting best one.
        seconds = self.progress.seconds + begun - self._begun
        progress, spare = replace(self.progress, seconds=seconds), self.checkpoint_writer.take_spare()
        snapshot = take_snapshot(state_dict, progress, self.spec.to_yaml(), spare)
        name = f"{self.state.images:012d}-{self.attempt:04d}"
        scores = [self._score[1]] if self._score and self._score[0] == self.state.images else []
        pointer = Pointer(name, self.state.images, self.attempt, self.best.value_in(scores[0]) if scores else None)
        facts = {"images": self.state.images, "attempt": self.attempt, **self.data_facts, "scores": scores}
        if self.spec.tune:
            self.checkpoint_writer.held |= {name}
        seconds = time.monotonic() - begun
        self.checkpoint_writer.submit(PendingCheckpoint(snapshot, facts, pointer, best, seconds, to_score))

    def end_attempt(self, failed: bool = False) -> None:
        """End this attempt, or a run that has `failed`: wait until pending writes, not scores, are done or have failed.

        Raises:
            RunError: another attempt has the run.
        """
        if self._profiler:
            self._profiler.close()
        if self.checkpoint_writer is not None and self.line_writer is not None:
            if not failed and not isinstance(self.transition, ScheduleStep):  # `finish` has closed its files.
                spent = self.time_accounting.read()
                if not isinstance(self.transition, Drain):
                    del spent["round"]  # Rounds since the last tick are discarded.
                self.log_event(records.AttemptEnded(images=self.state.images, spent=spent))
            self.checkpoint_writer.close()
            self.line_writer.close()
            self.checkpoint_writer.raise_fault(0)

    def finish(self, ending: type[records.RunFinished | records.RunStopped] | None) -> None:
        """Wait for the last checkpoint, lines and scores; then write `ending`, if given, as the last event.

        Raises:
            RunError: that checkpoint could not be written, or another attempt has the run.
        """
        if self._profiler and not self._profiler.close() and ending:
            message = "the run ended before train.profile_rounds were over: nothing was profiled"
            self.emit_event(records.ProfileEnded(images=self.state.images, files=[], message=message))
        if self.checkpoint_writer is None or self.line_writer is None:
            return
        try:
            with self.time_accounting.measure("checkpoint"):
                self.checkpoint_writer.drain()
            self.checkpoint_writer.raise_fault(0)
            self._await_scores(self.checkpoint_writer)
            if unsaved := self.checkpoint_writer.unsaved:
                raise RunError(f"{unsaved}; the last good one is kept: repair the storage and run the same command")
            if ending:
                self.log_event(ending(images=self.state.images, spent=self.time_accounting.read()))
        finally:
            self.line_writer.close()

    def _await_scores(self, checkpoint_writer: CheckpointWriter) -> None:
        """Wait for the scores of evaluation tasks, unless the run is to stop."""
        if checkpoint_writer.unscored:
            self.channel.send(messages.LastScoresAwaited())
        with self.time_accounting.measure("score"):
            while checkpoint_writer.unscored and not self.channel.stop:
                time.sleep(POLL_SECONDS)
                self._execute_commands(checkpoint_writer)
        checkpoint_writer.drain()

    def log_event(self, event: records.EventRecord) -> None:
        """Write a line of this attempt's events."""
        self._append(f"events/{self.attempt:04d}.jsonl", event.to_line(), soon=True)

    def emit_event(self, event: records.Emitted) -> None:
        """Write an event and send it to the driver; an announcement also to its terminal. Called by several threads."""
        self.log_event(event)
        self.channel.send(event)
        if isinstance(event, records.Announcement):
            self.channel.send(messages.Note(event.message))

    def _append(self, name: str, fields: dict[str, Any], soon: bool = False) -> None:
        if self.line_writer is not None:
            self.line_writer.add(name, fields, soon)
