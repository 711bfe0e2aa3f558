"""Training loop: rounds, ticks, scores and checkpoints in order. Only the host knows Ray, storage and time."""

from collections.abc import Callable
from typing import Protocol

from ganrun.config.schema import CheckpointConfig, EvaluateConfig
from ganrun.data.decode import RawBatch
from ganrun.errors import DivergedError
from ganrun.telemetry.series import LEARNING_RATE, NONFINITE
from ganrun.training.player_step import learning_rate
from ganrun.training.state import TrainingState


class Host(Protocol):
    """Environment of the loop. All workers call each method after the same number of images."""

    def should_stop(self) -> bool:
        """Return True if the run is to save and exit; the same on all workers."""

    def record(self, values: dict[str, float], symptoms: tuple[str, ...]) -> None:
        """Record a tick: means since the last one by metric name, and the current symptoms of collapse."""

    def picture(self) -> None:
        """Draw samples of the EMA generator."""

    def evaluate(self) -> bool:
        """Score the EMA generator. Return True if a checkpoint is due for that."""

    def save(self) -> None:
        """Save a checkpoint."""


def train(
    state: TrainingState,
    next_batches: Callable[[], list[RawBatch]],
    host: Host,
    evaluate: EvaluateConfig,
    checkpoint: CheckpointConfig,
) -> bool:
    """Play rounds until the run has its images or the host asks to stop. Return True if it has its images.

    Raises:
        DivergedError: more turns of a tick had non-finite gradients than the config tolerates, or the run collapsed
            and `train.rollback_on_collapse` is set.
    """
    if state.images == 0:
        host.picture()
    # A checkpoint that is due waits for a round without a skipped turn: weights may be finite and yet diverged.
    due = False
    while state.images < state.train.total_images:
        before = state.images
        state.round(next_batches)
        done, ticked = (
            state.images >= state.train.total_images,
            _passed(state.train.tick_images, before, state.images),
        )
        if done or ticked:
            _tick(state, host)
        # Score at the first tick too: a baseline, and a fault of the scores shows early.
        first = ticked and before < state.train.tick_images
        if evaluate.every_images and (done or first or _passed(evaluate.every_images, before, state.images)):
            due = host.evaluate() or due
        stop = host.should_stop()
        due = due or stop or _passed(checkpoint.every_images, before, state.images)
        if done or (due and not state.skipped):
            host.save()
            if stop and not done:
                return False
            due = False
    return True


def _passed(interval: int, before: int, after: int) -> bool:
    """Return True if a multiple of the interval lies in (before, after]; an interval of 0 has none."""
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
