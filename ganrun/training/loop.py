"""The order of events in a run. Knows no Ray, no storage and no clock: those are the host's."""

from collections.abc import Callable
from typing import Protocol

from ganrun.config.schema import CheckpointConfig, EvaluateConfig
from ganrun.data.decode import RawBatch
from ganrun.errors import DivergedError
from ganrun.telemetry.series import LEARNING_RATE, NONFINITE
from ganrun.training.player_step import learning_rate
from ganrun.training.state import TrainingState


class Host(Protocol):
    """Where a run takes place. All workers call these at the same images."""

    def should_stop(self) -> bool:
        """Whether the run is asked to save and leave; the same on all workers."""

    def record(self, values: dict[str, float], symptoms: tuple[str, ...]) -> None:
        """A tick: means since the last one, by metric name, and the symptoms of collapse that hold."""

    def picture(self) -> None:
        """Samples of the EMA generator."""

    def evaluate(self) -> bool:
        """Has the EMA generator scored; whether a checkpoint is due for that."""

    def save(self) -> None:
        """A checkpoint."""


def train(
    state: TrainingState,
    next_batches: Callable[[], list[RawBatch]],
    host: Host,
    evaluate: EvaluateConfig,
    checkpoint: CheckpointConfig,
) -> bool:
    """Plays rounds until the run has its images or the host asks to stop; whether it has them.

    Raises:
        DivergedError: more turns were not finite in a tick than the config tolerates, or it collapsed and is
            to be rolled back then.
    """
    if state.images == 0:
        host.picture()
    # A checkpoint that is owed waits for a round without a skipped turn: weights may be finite and yet lost.
    owed = False
    while state.images < state.train.total_images:
        before = state.images
        state.round(next_batches)
        done, ticked = (
            state.images >= state.train.total_images,
            _passed(state.train.tick_images, before, state.images),
        )
        if done or ticked:
            _tick(state, host)
        # The first tick is scored, too: to compare with, and so that what is wrong with scores is seen soon.
        first = ticked and before < state.train.tick_images
        if evaluate.every_images and (done or first or _passed(evaluate.every_images, before, state.images)):
            owed = host.evaluate() or owed
        stop = host.should_stop()
        owed = owed or stop or _passed(checkpoint.every_images, before, state.images)
        if done or (owed and not state.skipped):
            host.save()
            if stop and not done:
                return False
            owed = False
    return True


def _passed(interval: int, before: int, after: int) -> bool:
    """Whether a multiple of the interval lies in (before, after]."""
    return bool(interval) and after // interval > before // interval


def _tick(state: TrainingState, host: Host) -> None:
    values, nonfinite = state.recorder.read()
    for player_step in state.player_steps:
        rate = learning_rate(player_step.settings, state.images, state.train.total_images)
        values[LEARNING_RATE.of(player_step.player.name)] = rate
    symptoms, settings = state.collapse_detector.update(values), state.train
    host.record(values | {NONFINITE.key: nonfinite}, symptoms)
    if nonfinite > settings.nonfinite_tolerance:
        raise DivergedError(
            f"{nonfinite} turns before {state.images:,} images had a loss or gradient that is not finite, more than "
            f"train.nonfinite_tolerance: {settings.nonfinite_tolerance}"
        )
    if symptoms and settings.rollback_on_collapse:
        raise DivergedError(f"a collapse is suspected at {state.images:,} images: {', '.join(symptoms)}")
    host.picture()
