"""ganrun: distributed training of generative adversarial networks."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.3.0"

MOVED = {
    "ganrun.latent": "ganrun.games.latent",
    "ganrun.losses": "ganrun.games.losses",
    "ganrun.penalties": "ganrun.games.penalties",
    "ganrun.tables": "ganrun.config.registry",
}
"""Modules that users' own modules import by their names before 0.2. ganrun.extend replaces them."""


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
