"""Table of all metrics of a run or a search. Only this file and the producer of a metric spell its name.

In Prometheus every metric has the labels `run` and `trial` (empty outside a search) before its own. Units are base
units. In lines of metrics/*.jsonl the key of a metric is its name without `_total`, at ticks followed by its labels
after slashes: `loss/generator`, `shard_errors/timeout`.
"""

from dataclasses import dataclass
from typing import Literal

from ganrun.config.score_names import OF_GAMES, PAIRED
from ganrun.errors import UserError
from ganrun.telemetry.baselines import split

PREFIX = "ganrun_"
COMMON = ("run", "trial")
TOTAL = "_total"
Source = Literal["tick", "score", "event"]


@dataclass(frozen=True, eq=False)
class Series:
    """One metric."""

    name: str
    """Name in Prometheus without PREFIX."""
    kind: Literal["gauge", "counter"]
    """A gauge is its newest value. A counter is the sum of its values over ticks and attempts."""
    source: Source
    """Origin of the values: lines of metrics/ at ticks, lines of metrics/ at scores, or events."""
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    """Labels besides COMMON."""
    charted: bool = False
    """True if the page of the sidecar draws its curve."""

    @property
    def full_name(self) -> str:
        """Name in Prometheus."""
        return PREFIX + self.name

    @property
    def key(self) -> str:
        """Key in lines of metrics/, before the labels."""
        return self.name.removesuffix(TOTAL)

    @property
    def prefix(self) -> str:
        """Common prefix of its keys."""
        return f"{self.key}/" if self.labels and self.source == "tick" else self.key

    @property
    def of_a_rank(self) -> bool:
        """True if every rank has a value. Such values go to the sidecar only: many ranks would fill metrics/*.jsonl."""
        return self.labels == ("rank",)

    def of(self, *labels: object) -> str:
        """Return the key of the metric with these labels."""
        return "/".join([self.key, *map(str, labels)])


_all: list[Series] = []


def _gauge(source: Source, name: str, unit: str, help: str, *labels: str, charted: bool = False) -> Series:
    _all.append(Series(name, "gauge", source, unit, help, labels, charted))
    return _all[-1]


def _counter(source: Source, name: str, unit: str, help: str, *labels: str) -> Series:
    _all.append(Series(name + TOTAL, "counter", source, unit, help, labels))
    return _all[-1]


# Progress.
IMAGES_SHOWN = _counter("event", "images", "images", "Real images shown, including those repeated after a failure.")
IMAGES = _gauge("event", "images", "images", "Images shown that count towards train.total_images.")
TARGET_IMAGES = _gauge("event", "target_images", "images", "Length of the run: train.total_images.")
IMAGES_PER_SECOND = _gauge(
    "tick", "images_per_second", "images/s", "Real images shown per second since the last tick.", charted=True
)
ROUND_SECONDS = _gauge(
    "tick", "round_seconds", "seconds", "Mean duration of a round since the last tick, without scores."
)
RANK_ROUND_SECONDS = _gauge(
    "tick", "rank_round_seconds", "seconds", "Mean time per round that a rank works before it waits for others.", "rank"
)
DATA_WAIT_RATIO = _gauge(
    "tick", "data_wait_ratio", "ratio", "Share of the time since the last tick that rank 0 waited for data."
)
SECONDS = _counter(
    "tick", "seconds", "seconds", "Rank 0's time: round, data (waiting), score, checkpoint, samples, telemetry.", "part"
)

# The game.
LOSS = _gauge(
    "tick",
    "loss",
    "1",
    "Mean of a player's loss since the last tick, and of its parts.",
    "player",
    "part",
    charted=True,
)
LOGIT = _gauge(
    "tick", "logit", "1", "The discriminator's mean logit of real and of generated images.", "side", charted=True
)
LOGIT_SIGN = _gauge(
    "tick",
    "logit_sign",
    "1",
    "Mean sign of the discriminator's logits of real images (r of ADA): 1 where it knows all of them, 0 by chance.",
    "side",
)
GRADIENT_NORM = _gauge(
    "tick", "gradient_norm", "1", "Mean norm of a player's gradient since the last tick.", "player", charted=True
)
LEARNING_RATE = _gauge("tick", "learning_rate", "1", "A player's learning rate.", "player")
SAMPLE_DIVERSITY = _gauge(
    "event", "sample_diversity", "1", "Mean over pixels of the samples' standard deviation over latents; in [0, 1]."
)
NONFINITE = _counter("tick", "nonfinite", "turns", "Turns skipped because a gradient was not finite.")
COLLAPSE_SUSPECTED = _gauge(
    "tick",
    "collapse_suspected",
    "bool",
    "1 while a symptom of collapse lasts (ganrun/training/collapse.py).",
    "symptom",
)

# Scores of the EMA generator.
FRECHET_DISTANCE = _gauge(
    "score", "frechet_distance", "1", "Newest Fréchet distance; lower is better.", "extractor", "samples", charted=True
)
MODE_DISTANCE = _gauge(
    "score",
    "mode_distance",
    "1",
    "Newest distance to a mixture with known modes; lower is better.",
    charted=True,
)
KID = _gauge("score", "kid", "1", "Newest kernel distance; lower is better.")
PRECISION = _gauge("score", "precision", "ratio", "Newest precision: share of samples that look real.")
RECALL = _gauge("score", "recall", "ratio", "Newest recall: share of real images that the generator reaches.")
EVALUATION = _gauge(
    "score",
    "evaluation",
    "1",
    "Newest value of every other metric of evaluate.metrics, and of trivial baselines (empty: the run itself).",
    "metric",
    "baseline",
)
WORSE_THAN_BASELINE = _gauge(
    "event", "worse_than_baseline", "bool", "1 while a score of pairs is worse than its best baseline's.", "metric"
)

# Checkpoints.
CHECKPOINT_SECONDS = _gauge(
    "event", "checkpoint_seconds", "seconds", "Time from snapshot to complete checkpoint, for the newest one."
)
CHECKPOINT_BLOCKED_SECONDS = _gauge(
    "event", "checkpoint_blocked_seconds", "seconds", "Time that training waited for the newest snapshot."
)
CHECKPOINT_BYTES = _gauge("event", "checkpoint_bytes", "bytes", "Size of the newest checkpoint.")
CHECKPOINT_TIME = _gauge(
    "event", "checkpoint_last_success_timestamp_seconds", "seconds", "Time at which the newest checkpoint was complete."
)
CHECKPOINT_FAILURES = _counter("event", "checkpoint_failures", "checkpoints", "Checkpoints that could not be written.")

# Data.
SHARD_BYTES = _counter(
    "tick", "shard_bytes", "bytes", "Bytes of shards that all workers read from storage, not from the cache."
)
SHARD_ERRORS = _counter("tick", "shard_errors", "errors", "Failed reads of shards, which are retried.", "kind")
SAMPLES_SKIPPED = _counter("tick", "samples_skipped", "samples", "Corrupt samples skipped.")

# Workers.
WORKERS = _gauge("event", "workers", "workers", "Number of workers.")
RESTARTS = _counter(
    "event",
    "restarts",
    "restarts",
    "Restarts of the workers by reason: failure, preemption, resize, resume.",
    "reason",
)
ROLLBACKS = _counter("event", "rollbacks", "rollbacks", "Returns to the last good checkpoint, with other noise.")
GPU_MEMORY_BYTES = _gauge(
    "tick", "gpu_memory_bytes", "bytes", "Peak memory of a rank's GPU since the last tick.", "rank"
)
GPU_SECONDS = _counter("tick", "gpu_seconds", "seconds", "GPU time held, summed over GPUs.")

# A search.
EXPLOITS = _counter("event", "exploits", "exploits", "Exploits: trials that copied another trial's checkpoint.")
TRIALS = _gauge("event", "trials", "trials", "Trials of a search by state.", "state")

# Liveness.
ENDED = _gauge("event", "ended", "bool", "1 for a run that ended: finished, stopped, failed.", "ending")
UP = _gauge(
    "event", "up", "bool", "1 while a run pushes, 0 when it is silent or has ended. Without labels: 1 for the sidecar."
)

SERIES = tuple(_all)
BY_NAME = {series.name: series for series in SERIES}
DISTANCES = (FRECHET_DISTANCE, MODE_DISTANCE)
"""Scores that can select the checkpoint of best.json; the lowest is the best."""
RESERVED_COLUMNS = frozenset({"images", "time", *(series.key for series in DISTANCES)})
"""Columns of a line of scores that no score may use."""
COUNTERS = {series.key: series for series in SERIES if series.kind == "counter"}
"""Counters by key."""
SCORES = {series.key: series for series in SERIES if series.source == "score" and series is not EVALUATION}
"""Scores with a series of their own, by key."""
_TICK = {series.key: series for series in SERIES if series.source == "tick"}
_CHARTED = {series.key for series in SERIES if series.charted}

SHARED_PARTS = (LOGIT.key, LOGIT_SIGN.key, "penalty", "augmentation")
"""Beginnings of parts of a loss that are columns of their own, such as `logit/real`, and not below their player."""
RESERVED = {"", "images", "time", "score", "total", *(series.key for series in SERIES)} - {LOGIT.key, LOGIT_SIGN.key}
"""Beginnings of columns of the curve that are not parts of a loss, and the part of LOSS that is the whole loss."""


def part_key(player: str, part: str) -> str:
    """Return the key at a tick of a part of a player's loss: `logit/real`, `loss/generator/kl`.

    Raises:
        UserError: it has the name of a column that ganrun writes itself.
    """
    head, _, rest = part.partition("/")
    if head in RESERVED:
        raise UserError(
            f"player {player}: Loss.parts: {part!r} is reserved for a column of ganrun; choose another name, such as "
            f"'my_{head or 'part'}'"
        )
    return part if head in SHARED_PARTS and rest else LOSS.of(player, part)


def read_tick_key(key: str) -> tuple[Series, tuple[str, ...]]:
    """Return the series and labels of a key at a tick.

    `loss/generator` is the total loss of that player, `loss/generator/kl` a part of it. An unknown key is a part of
    LOSS without a player: one of SHARED_PARTS or, in older curves, any part.
    """
    head, _, rest = key.partition("/")
    series = _TICK.get(head)
    if series is LOSS and rest:
        player, _, part = rest.partition("/")
        return LOSS, (player, part or "total")
    if series is None or bool(rest) != bool(series.labels):
        return LOSS, ("", key)
    return series, (rest,) if rest else ()


def is_summed(key: str) -> bool:
    """Return True for the key of a counter at a tick."""
    return read_tick_key(key)[0].kind == "counter"


def is_charted(key: str) -> bool:
    """Return True for a key at a tick or score that has a curve on the page."""
    score, baseline = split(key.partition("/")[0])
    return score in _CHARTED or score in PAIRED or score in OF_GAMES or bool(baseline)


def of_a_rank(key: str) -> bool:
    """Return True for the key of a value of a single rank."""
    return read_tick_key(key)[0].of_a_rank
