"""Every series that a run or a search shows to Prometheus, once. Dashboards and alerts are made from this table.

All carry the labels `run` and `trial` (empty outside a search) before their own; units are base units.
"""

from dataclasses import dataclass
from typing import Literal

PREFIX = "ganrun_"
COMMON = ("run", "trial")
DISTANCES = ("frechet_distance", "mode_distance")
"""What a run may be scored by: the best checkpoint has the least of it."""


@dataclass(frozen=True)
class Series:
    """One metric: `name` without the prefix; `labels` beside `COMMON`."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return PREFIX + self.name


def _gauge(name: str, unit: str, help: str, *labels: str) -> Series:
    return Series(name, "gauge", unit, help, labels)


def _counter(name: str, unit: str, help: str, *labels: str) -> Series:
    return Series(name, "counter", unit, help, labels)


SERIES = (
    # Progress.
    _counter("images_total", "images", "Real images shown: work done, also what was shown anew after a failure."),
    _gauge("images", "images", "Real images that the run has behind it."),
    _gauge("target_images", "images", "Length of the run: train.total_images."),
    _gauge("images_per_second", "images/s", "Real images shown a second since the last tick."),
    _gauge("round_seconds", "seconds", "Mean duration of a round since the last tick, without scores."),
    _gauge("rank_round_seconds", "seconds", "Mean time a round that a rank works before it waits for others.", "rank"),
    _gauge("data_wait_ratio", "ratio", "Share of the time since the last tick that rank 0 waited for data."),
    _counter(
        "seconds_total",
        "seconds",
        "Rank 0's time: round, data (waiting), score, checkpoint, samples, telemetry.",
        "part",
    ),
    # The game.
    _gauge("loss", "1", "Mean of a player's loss since the last tick, and of its parts.", "player", "part"),
    _gauge("logit", "1", "The discriminator's mean logit of real and of generated images.", "side"),
    _gauge("gradient_norm", "1", "Mean norm of a player's gradient since the last tick.", "player"),
    _gauge("learning_rate", "1", "A player's learning rate.", "player"),
    _gauge("sample_diversity", "1", "Mean over pixels of the samples' standard deviation over latents; in [0, 1]."),
    _counter("nonfinite_total", "turns", "Turns skipped because a gradient was not finite."),
    _gauge("collapse_suspected", "bool", "1 while a sign of collapse holds (ganrun/training/collapse.py).", "sign"),
    # Scores of the EMA generator.
    _gauge("frechet_distance", "1", "Newest Fréchet distance; lower is better.", "extractor", "samples"),
    _gauge("mode_distance", "1", "Newest distance from a mixture whose modes are known; lower is better."),
    _gauge("kid", "1", "Newest kernel distance; lower is better."),
    _gauge("precision", "ratio", "Newest precision: share of samples that look real."),
    _gauge("recall", "ratio", "Newest recall: share of real images that the generator reaches."),
    _gauge("evaluation", "1", "Newest value of every other metric of evaluate.metrics.", "metric"),
    # Checkpoints.
    _gauge("checkpoint_seconds", "seconds", "From a checkpoint's copy in memory to its being visible, the newest one."),
    _gauge("checkpoint_blocked_seconds", "seconds", "So long the round waited for the newest checkpoint's copy."),
    _gauge("checkpoint_bytes", "bytes", "Size of the newest checkpoint."),
    _gauge("checkpoint_last_success_timestamp_seconds", "seconds", "When the newest checkpoint became visible."),
    _counter("checkpoint_failures_total", "checkpoints", "Checkpoints that could not be written."),
    # Data.
    _counter("shard_bytes_total", "bytes", "Bytes of shards that all workers read from storage, not from the cache."),
    _counter("shard_errors_total", "errors", "Reads of shards that failed and were tried again.", "kind"),
    _counter("samples_skipped_total", "samples", "Damaged samples passed over."),
    # Workers.
    _gauge("workers", "workers", "Processes that train."),
    _counter(
        "restarts_total",
        "restarts",
        "Starts of the workers after the first: failure, preemption, resize, resume.",
        "reason",
    ),
    _counter("rollbacks_total", "rollbacks", "Returns to the last good checkpoint, with other noise."),
    _gauge("gpu_memory_bytes", "bytes", "Most memory of a rank's GPU in use since the last tick.", "rank"),
    _counter("gpu_seconds_total", "seconds", "Seconds that GPUs were held, summed over them."),
    # A search.
    _counter("exploits_total", "exploits", "Trials that took another's weights."),
    _gauge("trials", "trials", "Trials of a search by their state.", "state"),
    # Whether anybody is there.
    _gauge("ended", "bool", "1 for a run that ended: finished, stopped, failed.", "ending"),
    _gauge("up", "bool", "1 while a run pushes, 0 when it is silent or has ended; without labels, of the sidecar."),
)
BY_NAME = {series.name: series for series in SERIES}
