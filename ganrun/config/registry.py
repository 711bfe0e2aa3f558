"""Everything that a config may call by name, and where it lives.

Entries are "module:attribute" and are imported when first looked up, so that names can be checked
without loading torch. A module named in `run.imports` adds its own:

    from ganrun.extend import LOSSES
    LOSSES["my_loss"] = my_loss
"""

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


def _import(entry: Any) -> Any:
    """The object of an entry that is given as "module:attribute"; any other entry as it is."""
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


class Registry(UserDict[str, Any]):
    """Name -> object, imported at the first look-up when it is given as "module:attribute"."""

    def __getitem__(self, name: str) -> Any:
        entry = self.data[name] = _import(super().__getitem__(name))
        return entry


@dataclass(frozen=True)
class NetworkFamily:
    """A generator and a discriminator that belong together.

    Attributes:
        build: function(ModelConfig, DataConfig) -> dict of networks by name, or where it lives.
        image_sizes: the only values of `data.image_size` that it is made for; None: any.
        width_multiple: `model.width` must be a multiple of it.
        without: switches of `model` that it does not have.
    """

    build: Callable[..., dict[str, Any]] | str
    image_sizes: tuple[int, ...] | None = None
    width_multiple: int = 1
    without: tuple[str, ...] = ()

    def __call__(self, model: Any, data: Any) -> dict[str, Any]:
        """Networks with fresh weights, by name, from the sections `model` and `data`."""
        return _import(self.build)(model, data)  # type: ignore[no-any-return]


class NetworkRegistry(Registry):
    """Name -> NetworkFamily; a bare function becomes a family that is made for everything."""

    def __setitem__(self, name: str, entry: Any) -> None:
        super().__setitem__(name, entry if isinstance(entry, NetworkFamily) else NetworkFamily(entry))


NETWORKS = NetworkRegistry(
    dcgan=NetworkFamily("ganrun.models.dcgan:dcgan", image_sizes=(16, 32, 64, 128, 256)),
    resnet=NetworkFamily("ganrun.models.resnet:resnet", image_sizes=(16, 32, 48, 64, 96, 128, 256)),
    r3gan=NetworkFamily(
        "ganrun.models.r3gan:r3gan",
        image_sizes=(8, 16, 32, 64, 128, 256),
        width_multiple=8,
        without=("spectral_norm", "minibatch_stddev"),
    ),
    mlp=NetworkFamily("ganrun.models.mlp:mlp", image_sizes=(1,), without=("minibatch_stddev",)),
)
"""`model.name` -> NetworkFamily."""

GAMES = Registry({"gan": "ganrun.games.gan:gan"})
"""`objective.game` -> function(networks, ObjectiveConfig, ModelConfig) -> Game."""

CROSS_ENTROPIES = ("minimax", "non_saturating")
"""Losses that `objective.label_smoothing` and `label_flipping` are made for."""

DIFFERENCES = ("wasserstein", "relativistic")
"""Losses of differences of logits: one logit's sign says nothing, so `objective.ada_target` has nothing to watch."""

LOSSES = Registry(
    {
        name: f"ganrun.games.losses:{name}"
        for name in (*CROSS_ENTROPIES, "least_squares", "hinge", "wasserstein", "relativistic")
    }
)
"""`objective.loss` -> AdversarialLoss."""

PENALTIES = Registry({name: f"ganrun.games.penalties:{name}" for name in ("r1", "r2", "wgan_gp", "wgan_lp", "dragan")})
"""`objective.penalties` -> Penalty."""

EXTRACTORS = Registry(
    {
        "efficientnet-lite0": "ganrun.models.extractors:efficientnet_lite0",
        "inception-v3-compat": "ganrun.models.extractors:inception_v3",
    }
)
"""`evaluate.extractor` -> function() -> Extractor."""


def is_script(extractor: str) -> bool:
    """Whether `evaluate.extractor` is the path or URI of a TorchScript program, which is in no registry."""
    return extractor.partition("#")[0].endswith(".pt")
