"""Everything that a config may call by name, and where it lives.

Entries are "module:attribute" and are imported when first looked up, so that names can be checked
without loading torch. A module named in `run.imports` adds its own:

    from ganrun.tables import LOSSES
    LOSSES["my_loss"] = my_loss
"""

from collections import UserDict
from importlib import import_module
from typing import Any


class Table(UserDict[str, Any]):
    """Name -> object, imported at the first look-up when it is given as "module:attribute"."""

    def __getitem__(self, name: str) -> Any:
        entry = super().__getitem__(name)
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self.data[name] = getattr(import_module(module), attribute)
        return entry


NETWORKS = Table({"dcgan": "ganrun.models.dcgan:dcgan"})
"""`model.name` -> function(ModelConfig, DataConfig) -> dict of networks by name."""

IMAGE_SIZES = {"dcgan": (16, 32, 64, 128, 256)}
"""`model.name` -> the only values of `data.image_size` that it is made for; left out, any."""

GAMES = Table({"gan": "ganrun.games.gan:gan"})
"""`objective.game` -> function(networks, ObjectiveConfig, ModelConfig) -> Game."""

LOSSES = Table(
    {name: f"ganrun.losses:{name}" for name in ("minimax", "non_saturating", "least_squares", "hinge", "wasserstein")}
)
"""`objective.loss` -> AdversarialLoss."""

EXTRACTORS = Table(
    {
        "efficientnet-lite0": "ganrun.features:efficientnet_lite0",
        "inception-v3-compat": "ganrun.features:inception_v3",
    }
)
"""`evaluate.extractor` -> function() -> Extractor."""


def is_script(extractor: str) -> bool:
    """Whether `evaluate.extractor` is the path or URI of a TorchScript program, which is in no table."""
    return extractor.partition("#")[0].endswith(".pt")
