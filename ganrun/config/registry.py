"""Registries of everything that a config names: networks, games, conditions, losses, penalties, extractors.

Entries are "module:attribute" and imported at the first look-up, so that names are checked without importing torch.
A module named in `run.imports` adds its own:

    from ganrun.extend import LOSSES
    LOSSES["my_loss"] = my_loss
"""

import inspect
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal, TypeVar

from ganrun.config.score_names import DIVERGENCES

T = TypeVar("T")


def _import(entry: Any) -> Any:
    """Import an entry given as "module:attribute"; return any other entry unchanged."""
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def offered(function: Callable[..., T], **values: Any) -> Callable[..., T]:
    """Return a function that a user registered, with those of the values filled in that its arguments name."""
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):  # A builtin.
        return function
    return partial(function, **{name: value for name, value in values.items() if name in names})


def with_own(function: Callable[..., T], own: Mapping[str, Any] | None) -> Callable[..., T]:
    """Return a function that a user registered, with its argument `own` filled in if it has one."""
    return offered(function, own=own or {})


class Registry(UserDict[str, Any]):
    """Name -> object, imported at the first look-up when it is given as "module:attribute"."""

    def __getitem__(self, name: str) -> Any:
        entry = self.data[name] = _import(super().__getitem__(name))
        return entry


@dataclass(frozen=True)
class NetworkFamily:
    """A pair of generator and discriminator.

    Attributes:
        build: function(ModelConfig, DataConfig) -> dict of networks by name, or its "module:attribute".
        image_sizes: supported values of `data.image_size`; None: any.
        width_multiple: `model.width` must be a multiple of it.
        without: switches of `model` that it does not support.
        pictures: "no": its networks take no pictures as condition, only labels; "may", or "must".
        fully_convolutional: its generator takes pictures whose sides are any multiples of the image size.
        game: `objective.game` that its networks play; None: any.
        image_multiple: `data.image_size` must be a multiple of it.
        points: True if it takes points.
        ignores: keys of `model` that have no effect on it.
        condition: the only `objective.condition` that it goes with; None: several.
        styles: its generator may have styles, see `models/style.py`.
    """

    build: Callable[..., dict[str, Any]] | str
    image_sizes: tuple[int, ...] | None = None
    width_multiple: int = 1
    without: tuple[str, ...] = ()
    pictures: Literal["no", "may", "must"] = "may"
    fully_convolutional: bool = False
    game: str | None = None
    image_multiple: int = 1
    points: bool = True
    ignores: tuple[str, ...] = ()
    condition: str | None = None
    styles: bool = True

    def __call__(
        self,
        model: Any,
        data: Any,
        own: Any = None,
        pictures: Mapping[str, int] | None = None,
        factor: int = 1,
        text: Any = None,
    ) -> dict[str, Any]:
        """Build networks with initial weights, by name.

        Args:
            model, data: sections of the config. `data.image_size` and `data.channels` are those of the generated field.
            own: section `own`, for a function that has this argument.
            pictures: `Condition.pictures`, for a function that has this argument.
            factor, text: `Condition.factor` and `Condition.text`, for a function that has these arguments.
        """
        build = offered(_import(self.build), own=own or {}, pictures=pictures or {}, factor=factor, text=text)
        return build(model, data)  # type: ignore[no-any-return]


class NetworkRegistry(Registry):
    """Name -> NetworkFamily. A plain function becomes a family without restrictions."""

    def __setitem__(self, name: str, entry: Any) -> None:
        super().__setitem__(name, entry if isinstance(entry, NetworkFamily) else NetworkFamily(entry))


DENSITY_KEYS, LATENT_KEYS = ("components", "factors", "blocks", "dropout"), ("latent_size", "latent")
"""Keys of `model` that GANs (but for `blocks`) do not have, and those of networks with a z."""
SWITCHES = ("spectral_norm", "minibatch_stddev", "resize_convolution")
gan_family = partial(NetworkFamily, game="gan", ignores=DENSITY_KEYS, styles=False)


def density_family(name: str, *uses: str, points: bool = False, image_multiple: int = 1) -> NetworkFamily:
    """Return the family of the density that `ganrun/models/NAME.py` builds, of which `uses` are keys of `model`."""
    return NetworkFamily(
        f"ganrun.models.{name}:{name}",
        without=SWITCHES,
        pictures="no",
        game="likelihood",
        image_multiple=image_multiple,
        points=points,
        ignores=tuple(key for key in ("width", *DENSITY_KEYS, *LATENT_KEYS) if key not in uses),
    )


NETWORKS = NetworkRegistry(
    dcgan=gan_family("ganrun.models.dcgan:dcgan", image_sizes=(16, 32, 64, 128, 256), without=("resize_convolution",)),
    resnet=gan_family(
        "ganrun.models.resnet:resnet",
        image_sizes=(16, 32, 48, 64, 96, 128, 256),
        without=("resize_convolution",),
        pictures="no",
    ),
    r3gan=gan_family(
        "ganrun.models.r3gan:r3gan", image_sizes=(8, 16, 32, 64, 128, 256), width_multiple=8, without=SWITCHES
    ),
    stylegan2=gan_family(
        "ganrun.models.stylegan2:stylegan2",
        image_sizes=(8, 16, 32, 64, 128, 256, 512, 1024),
        without=SWITCHES,
        pictures="no",
        ignores=("components", "factors", "dropout"),
        styles=True,
    ),
    mlp=gan_family(
        "ganrun.models.mlp:mlp", image_sizes=(1,), without=("minibatch_stddev", "resize_convolution"), pictures="no"
    ),
    **{
        name: gan_family(
            f"ganrun.models.known_games:{name}",
            image_sizes=(1,),
            without=SWITCHES,
            pictures="no",
            ignores=(*DENSITY_KEYS, "width"),
        )
        for name in ("dirac", "linear_quadratic")
    },
    pix2pix=gan_family(
        "ganrun.models.pix2pix:pix2pix",
        image_sizes=(32, 64, 128, 256, 512),
        without=("minibatch_stddev",),
        pictures="must",
        fully_convolutional=True,
        ignores=(*DENSITY_KEYS, *LATENT_KEYS),
    ),
    **{
        name: gan_family(
            f"ganrun.models.srgan:{name}",
            image_sizes=(16, 32, 64, 96, 128, 192, 256, 512),
            without=("minibatch_stddev", "resize_convolution"),
            pictures="must",
            fully_convolutional=True,
            ignores=("components", "factors", "dropout", *LATENT_KEYS),
            condition="low_resolution",
        )
        for name in ("srgan", "esrgan")
    },
    gain=NetworkFamily(
        "ganrun.models.gain:gain",
        image_sizes=(1,),
        without=SWITCHES,
        pictures="must",
        game="gain",
        ignores=(*DENSITY_KEYS, *LATENT_KEYS),
        condition="masked",
    ),
    mixture=density_family("mixture", "components", points=True),
    mixture_of_factor_analysers=density_family("mixture_of_factor_analysers", "components", "factors"),
    made=density_family("made", "width", "components", "dropout"),
    pixelcnn=density_family("pixelcnn", "width", "components", "blocks", "dropout"),
    nice=density_family("nice", "width", "blocks", image_multiple=2),
    realnvp=density_family("realnvp", "width", "blocks", image_multiple=4),
    glow=density_family("glow", "width", "blocks", image_multiple=4),
    vae=density_family("vae", "width", "latent_size", "components", "dropout", image_multiple=4),
)
"""`model.name` -> NetworkFamily."""

GAMES = Registry({name: f"ganrun.games.{name}:{name}" for name in ("gan", "likelihood", "gain", "inversion")})
"""`objective.game` -> function(networks, ObjectiveConfig, ModelConfig) -> Game; with an argument `condition` it
receives the Condition of the config, with `data` that section."""

CONDITIONS = Registry(
    {
        **{name: f"ganrun.games.conditions:{name}" for name in ("none", "label", "source")},
        **{name: f"ganrun.games.{name}:{name}" for name in ("low_resolution", "masked", "past_frames", "text")},
    }
)
"""`objective.condition` -> function(objective, model, data) -> Condition, of which it may leave out arguments."""

CROSS_ENTROPIES = ("minimax", "non_saturating")
"""Losses that support `objective.label_smoothing` and `label_flipping`."""

DIFFERENCES = ("wasserstein", "relativistic")
"""Losses of differences of logits. The sign of one logit means nothing, so `objective.ada_target` cannot be used."""

LOSSES = Registry(
    {
        name: f"ganrun.games.losses:{name}"
        for name in (*CROSS_ENTROPIES, "least_squares", "hinge", "wasserstein", "relativistic")
    }
)
"""`objective.loss` -> AdversarialLoss."""

PENALTIES = Registry(
    {
        name: f"ganrun.games.penalties:{name}"
        for name in ("r1", "r2", "r1_differences", "r2_differences", "wgan_gp", "wgan_lp", "dragan", "matching_aware")
    }
)
"""`objective.penalties` -> Penalty."""

RECONSTRUCTION = Registry(
    {
        name: f"ganrun.games.reconstruction:{name}"
        for name in ("l1", "l2", "gradient_difference", "feature_matching", "perceptual")
    }
)
"""`objective.reconstruction` -> Term."""

EXTRACTORS = Registry(
    {
        "efficientnet-lite0": "ganrun.models.extractors:efficientnet_lite0",
        "inception-v3-compat": "ganrun.models.extractors:inception_v3",
    }
)
"""`evaluate.extractor` -> function() -> Extractor."""

_FEATURE_SCORES, _PAIRED_SCORES = "ganrun.evaluation.feature_scores", "ganrun.evaluation.paired_scores"
SCORES = Registry(
    {
        "kid": f"{_FEATURE_SCORES}:Kid",
        "precision": f"{_FEATURE_SCORES}:precision",
        "recall": f"{_FEATURE_SCORES}:recall",
        "density": f"{_FEATURE_SCORES}:density",
        "coverage": f"{_FEATURE_SCORES}:coverage",
        "inception_score": f"{_FEATURE_SCORES}:InceptionScore",
        "class_frechet_distance": f"{_FEATURE_SCORES}:ClassFrechetDistance",
        "classes_hit": f"{_FEATURE_SCORES}:ClassesHit",
        "memorisation": "ganrun.evaluation.memorisation:Memorisation",
        "modes": "ganrun.evaluation.stacked_modes:StackedModes",
        "bits_per_dimension": "ganrun.evaluation.bits_per_dimension:BitsPerDimension",
        "duality_gap": "ganrun.evaluation.duality_gap:duality_gap",
        **{name: f"ganrun.evaluation.divergences:{name}" for name in DIVERGENCES},
        "l1": f"{_PAIRED_SCORES}:l1_score",
        "psnr": f"{_PAIRED_SCORES}:psnr_score",
        "ssim": f"{_PAIRED_SCORES}:ssim_score",
        "lpips": f"{_PAIRED_SCORES}:LpipsScore",
        "l1_hole": f"{_PAIRED_SCORES}:l1_hole",
        "psnr_hole": f"{_PAIRED_SCORES}:psnr_hole",
        "horizons": f"{_PAIRED_SCORES}:horizons",
        "rmse": f"{_PAIRED_SCORES}:Rmse",
        "matching": "ganrun.evaluation.text_scores:Matching",
        "colour_words": "ganrun.evaluation.text_scores:ColourWords",
    }
)
"""`evaluate.metrics` -> function() -> Score, such as a subclass of Score; with an argument `evaluate` it receives that
section of the config."""

OPTIMIZERS = Registry(
    {
        "adam": "ganrun.training.optimizers:adam",
        "adamw": "ganrun.training.optimizers:adamw",
        "sgd": "ganrun.training.optimizers:sgd",
    }
)
"""`optimizer.PLAYER.name` -> function(parameters, PlayerOptimizerConfig) -> torch.optim.Optimizer."""

OWN = Registry()
"""Section of `own` -> Settings class."""


def is_script(extractor: str) -> bool:
    """Return True if `evaluate.extractor` is the path or URI of a TorchScript program, not a registered name."""
    return extractor.partition("#")[0].endswith(".pt")
