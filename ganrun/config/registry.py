"""Everything that a config may call by name, and where it lives.

Entries are "module:attribute" and are imported when first looked up, so that names can be checked
without loading torch. A module named in `run.imports` adds its own:

    from ganrun.extend import LOSSES
    LOSSES["my_loss"] = my_loss
"""

from collections import UserDict
from importlib import import_module
from typing import Any


class Registry(UserDict[str, Any]):
    """Name -> object, imported at the first look-up when it is given as "module:attribute"."""

    def __getitem__(self, name: str) -> Any:
        entry = super().__getitem__(name)
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self.data[name] = getattr(import_module(module), attribute)
        return entry


NETWORKS = Registry({name: f"ganrun.models.{name}:{name}" for name in ("dcgan", "resnet", "r3gan", "mlp")})
"""`model.name` -> function(ModelConfig, DataConfig) -> dict of networks by name."""

IMAGE_SIZES = {
    "dcgan": (16, 32, 64, 128, 256),
    "resnet": (16, 32, 48, 64, 96, 128, 256),
    "r3gan": (8, 16, 32, 64, 128, 256),
    "mlp": (1,),
}
"""`model.name` -> the only values of `data.image_size` that it is made for; left out, any."""

WIDTH_STEPS = {"r3gan": 8}
"""`model.name` -> what `model.width` must be a multiple of; left out, 1."""

NOT_BUILT = {"r3gan": ("spectral_norm", "minibatch_stddev"), "mlp": ("minibatch_stddev",)}
"""`model.name` -> the switches of `model` that it does not have."""

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
    """Whether `evaluate.extractor` is the path or URI of a TorchScript program, which is in no table."""
    return extractor.partition("#")[0].endswith(".pt")
