"""The sections of a run's config, typed. Imports no torch and no ray.

Each part of ganrun is given its own section. Keys marked `FIXED` cannot change once a run has begun.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field

from ganrun.config.field_types import (
    FIXED,
    Count,
    Metric,
    Names,
    NotNegative,
    Positive,
    Section,
    Share,
    Whole,
    Workers,
    listed,
)
from ganrun.config.schema_tune import TuneConfig


class RunConfig(Section):
    """Which run this is and where it lives."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """The run lives at {storage}/{name}."""
    storage: str = "runs"
    """A folder that all workers see, or s3://bucket/prefix."""
    seed: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Every random number of the run follows from it."""
    start_from: str | None = None
    """Another run, or one of its checkpoints, with whose weights this one begins; what does not fit is named."""
    imports: Names = ()
    """Modules of yours that add networks, losses or games to the registries of ganrun.extend."""
    patience_seconds: Whole = 120
    """So long a storage that does not answer is asked again before the run gives up."""

    @property
    def uri(self) -> str:
        """Address of the run's folder."""
        return f"{self.storage}/{self.name}"


class FieldConfig(Section):
    """A field of the samples; `label: label` is short for `label: {kind: label}`."""

    kind: Literal["image", "label", "text", "vector", "point"]
    """image: 8 bits, of data.image_size; label: a whole number; text: UTF-8; vector: numbers, JSON or .npy;
    point: a vector of data.channels numbers that stands for an image, of one pixel."""
    extension: str | None = None
    """Of its file in the shard, after the key's first dot; unset: png, jpg, jpeg or webp; cls; txt; json or npy."""
    channels: Literal[1, 3] | None = None
    """Of an image; unset: data.channels."""


def _kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class DataConfig(Section):
    """Which images are shown, and in what portions."""

    shards: str | list[str]
    """A folder or s3:// prefix with an index, shards by brace range, glob or list, or package:fashion-mnist-10k."""
    image_size: Annotated[Count, Field(le=1024, json_schema_extra=FIXED)]
    """Height and width in pixels, at least 8; the stream refuses any other. 1 for points."""
    channels: Annotated[Count, Field(json_schema_extra=FIXED)] = 3
    """1 for grey, 3 for RGB; of points the numbers of one."""
    batch_size: Annotated[Count, Field(json_schema_extra=FIXED)] = 64
    """Images a turn over all workers: the number of workers does not change it."""
    slots: Annotated[Count | None, Field(json_schema_extra=FIXED)] = None
    """Portions of the global batch, at least one a worker; unset, as many as workers when the run begins."""
    shuffle_shards: Annotated[Count, Field(json_schema_extra=FIXED)] = 4
    """Samples are shuffled over so many shards at a time, which each slot of a worker holds in memory."""
    fields: Annotated[dict[str, Annotated[FieldConfig, BeforeValidator(_kind)]], Field(json_schema_extra=FIXED)] = {
        "image": FieldConfig(kind="image")
    }
    """Fields read of each sample, by the name that the game knows; `image`, an image or a point, is generated."""
    damaged_share: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share of damaged samples that are passed over, counted and named; 0: the first one ends the run."""
    cache_mib: Whole = 1_024
    """Shards of object storage kept on each machine's disk, below XDG_CACHE_HOME; 0: none."""


class ModelConfig(Section):
    """The networks."""

    name: Annotated[str, Field(json_schema_extra=FIXED)] = "dcgan"
    """Which pair."""
    width: Annotated[Count, Field(json_schema_extra=FIXED)] = 64
    """Channels of the layers at the highest resolution; DCGAN's paper has 128. Of mlp, units of a hidden layer."""
    latent_size: Annotated[Count, Field(json_schema_extra=FIXED)] = 100
    """Dimensions of the generator's noise z."""
    classes: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Labels that the networks are conditioned on; 0: none."""
    latent: Annotated[Literal["normal", "uniform", "truncated", "hypersphere"], Field(json_schema_extra=FIXED)] = (
        "normal"
    )
    """How z is distributed; truncated: normal, but nothing beyond 2."""
    spectral_norm: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Whether the discriminator's weights are divided by their largest singular value, in place of batch norm."""
    minibatch_stddev: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Whether the discriminator sees how much the images of its batch differ."""


class ObjectiveConfig(Section):
    """What the players play for."""

    game: Annotated[str, Field(json_schema_extra=FIXED)] = "gan"
    """Which game."""
    loss: Annotated[str, Field(json_schema_extra=FIXED)] = "non_saturating"
    """Which adversarial loss."""
    discriminator_turns: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Turns of the discriminator in a round, each on a fresh batch."""
    penalties: Annotated[dict[str, Positive], Field(json_schema_extra=FIXED)] = {}
    """On the discriminator's slope, with their weights: r1, r2, wgan_gp, wgan_lp (one-sided), dragan."""
    penalty_every_rounds: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Penalties are computed once in so many rounds, and count so many times there."""
    weight_clip: Annotated[NotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """The discriminator's weights stay in [-weight_clip, weight_clip], as in the first WGAN; 0: free."""
    feature_matching: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """The generator matches the discriminator's mean features of real images, instead of its part of the loss."""
    label_smoothing: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Real images count as real to 1 minus this; for the cross-entropies minimax and non_saturating."""
    label_flipping: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share of pairs whose real image the discriminator is told is generated, and the reverse; as label_smoothing."""
    instance_noise: Annotated[NotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """Standard deviation of noise on all images that the discriminator sees, at the beginning; 0: none."""
    instance_noise_images: Annotated[Count, Field(json_schema_extra=FIXED)] = 100_000
    """Instance noise falls linearly to 0 over so many images."""
    diffaugment: Annotated[
        tuple[Literal["color", "translation", "cutout"], ...], BeforeValidator(listed), Field(json_schema_extra=FIXED)
    ] = ()
    """Random changes to all images that the discriminator sees: color, translation, cutout; for few images."""
    ada_target: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Augmentation as strong as keeps the mean of sign(D(real)) here; the paper has 0.6; 0: none."""
    ada_images: Annotated[Count, Field(json_schema_extra=FIXED)] = 500_000
    """Images in which that strength can rise from 0 to 1."""


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015) for one player; rates may differ (Heusel et al. 2017, arXiv:1706.08500)."""

    learning_rate: Positive = 2e-4
    """Step size at its height."""
    beta1: Share = 0.5
    """Decay of the first moment."""
    beta2: Share = 0.999
    """Decay of the second moment."""
    epsilon: Positive = 1e-8
    """Added to the root of the second moment."""
    clip_norm: NotNegative = 0.0
    """A longer gradient, over all weights, is shortened to this length; 0: never."""
    warmup_images: Whole = 0
    """The learning rate rises linearly from 0 over so many images."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 at train.total_images; constant: not at all."""


class OptimizerConfig(Section):
    """An optimizer for each player; players of games of your own may have other names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AdamConfig] = Field(init=False)

    discriminator: AdamConfig = AdamConfig()
    """The discriminator's."""
    generator: AdamConfig = AdamConfig()
    """The generator's."""

    @property
    def players(self) -> set[str]:
        """Names of the players with settings of their own."""
        return {*type(self).model_fields, *(self.__pydantic_extra__ or {})}

    def of(self, player: str) -> AdamConfig:
        """The settings of a player: its own, or the defaults."""
        return getattr(self, player) if player in self.players else AdamConfig()


class TrainConfig(Section):
    """How long and how precisely."""

    total_images: Count
    """Length of the run in real images shown."""
    precision: Annotated[Literal["float32", "bf16", "float64"], Field(json_schema_extra=FIXED)] = "float32"
    """bf16: autocast over float32 weights, where the device computes in bf16; where not, float32, and a note."""
    average_half_life_images: Whole = 10_000
    """Half-life of the EMA generator; 0: the average is the generator itself."""
    tick_images: Count = 5_000
    """How often losses are read, and samples drawn."""
    nonfinite_tolerance: Whole = 10
    """Turns whose gradient is not finite are skipped; after more than so many in a tick the run is rolled back."""
    max_rollbacks: Whole = 2
    """So often in its life a run that diverged goes back to its last checkpoint, with other noise; then it ends."""
    rollback_on_collapse: bool = False
    """Whether a suspected collapse, which is always told, also rolls the run back."""
    profile_rounds: Whole = 0
    """So many rounds after the first tick are profiled, once, into profile/ of the run's folder; 0: none."""
    schedule: Annotated[tuple[dict[str, Any], ...], BeforeValidator(listed)] = ()
    """Hyper-parameters that change on the way, as `- {images: N, optimizer.generator.learning_rate: 1e-4}`; a search
    writes one."""


class EvaluateConfig(Section):
    """The score in training: of images a Fréchet distance, of points how far they are from covering the modes."""

    every_images: Whole = 0
    """How often; also at the first tick, to compare with, and at the end. 0: never."""
    where: Literal["workers", "task"] = "workers"
    """Who scores. task: another process on what the cluster has idle, while training goes on; but the last score."""
    samples: Annotated[Count, Field(ge=2, json_schema_extra=FIXED)] = 2_000
    """Generated images, and as many real ones. Scores of different numbers cannot be compared."""
    extractor: Annotated[str, Field(json_schema_extra=FIXED)] = "efficientnet-lite0"
    """Whose features scores are taken on; or the path or URI of a TorchScript program, ending in .pt."""
    extractor_weights: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Path or URI of the weights of inception-v3-compat; #sha256=... may follow. Unset: they are downloaded."""
    metrics: Annotated[tuple[Metric, ...], BeforeValidator(listed)] = ()
    """Scores beside the Fréchet distance; modes: of stacked images, those covered and their divergence."""


class CheckpointConfig(Section):
    """What a crash can cost."""

    every_images: Whole = 50_000
    """How often; also at the end. 0: only at the end."""
    keep: Count = 2
    """So many newest checkpoints stay, and the best."""
    max_age_seconds: Whole = 3_600
    """A run whose checkpoints fail is ended when the last good one is older, and one is due; 0: never."""


class ClusterConfig(Section):
    """How many machines' worth."""

    workers: Workers = 1
    """Processes that train, at most data.slots; or [fewest, most]: as many as there are machines for."""
    gpus_per_worker: Literal[0, 1] = 0
    """0: on the CPU."""
    cpus_per_worker: Positive = 1
    """CPUs that Ray sets aside for each; on the CPU also its threads."""
    max_failures: Whole = 3
    """So many times workers that died are started again."""

    @property
    def fewest_workers(self) -> int:
        """The run goes on with so many."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The run takes no more."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class TelemetryConfig(Section):
    """What a run shows of itself."""

    sample_images: Annotated[Count, Field(le=1024)] = 64
    """Images in each picture of samples."""
    push_seconds: Whole = 5
    """How often the state goes to the sidecar that GANRUN_SIDECAR names, or the one beside the command; 0: never."""


class Config(Section):
    """One run, whole."""

    run: RunConfig
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    cluster: ClusterConfig = ClusterConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    tune: TuneConfig | None = None
    """A search; `ganrun train` checks it and trains one run without it."""

    @property
    def slots(self) -> int:
        """Portions of the global batch."""
        return self.data.slots or self.cluster.most_workers

    @property
    def most_cpus(self) -> float:
        """CPUs of the most workers, and of a task that scores beside them."""
        scorers = int(self.evaluate.every_images > 0 and self.evaluate.where == "task")
        return (self.cluster.most_workers + scorers) * self.cluster.cpus_per_worker

    def to_yaml(self) -> str:
        """As YAML, every key written out."""
        # No warnings: in a dry run a number may still be the text `${oc.env:...}`.
        return yaml.safe_dump(self.model_dump(mode="json", warnings=False), sort_keys=False, allow_unicode=True)
