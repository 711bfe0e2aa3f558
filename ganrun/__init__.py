"""ganrun: distributed training of generative adversarial networks.

`ganrun.load`, `train`, `tune` and `Dataset` are imported when they are first used, so that `import ganrun` takes
milliseconds and loads no torch. Their types are in __init__.pyi.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Dataset", "Run", "__version__", "load", "train", "tune"]
__version__ = "0.3.0"

MOVED = {
    "ganrun.latent": "ganrun.games.latent",
    "ganrun.losses": "ganrun.games.losses",
    "ganrun.penalties": "ganrun.games.penalties",
    "ganrun.tables": "ganrun.config.registry",
}
"""Modules that users' own modules import by their names before 0.2. ganrun.extend replaces them."""

_NAMES = {"Dataset": "ganrun.api.dataset", "Run": "ganrun.api.run", "load": "ganrun.api.run"}
"""Modules of the names that programs use."""


def __getattr__(name: str) -> Any:
    if name in ("train", "tune"):  # Modules that are callable.
        return importlib.import_module(f"ganrun.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'ganrun' has no attribute {name!r}")


class _MovedModules(MetaPathFinder, Loader):
    """Import a moved module under its old name, with a deprecation note."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        import logging

        new = vars(importlib.import_module(MOVED[module.__name__]))
        vars(module).update({name: value for name, value in new.items() if not name.startswith("__")})
        logging.getLogger("ganrun").warning("%s is deprecated: import from ganrun.extend instead", module.__name__)


sys.meta_path.insert(0, _MovedModules())
