"""Modules that are called: `ganrun.train` is the module of the command, and the function that programs call."""

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """A module that calls its function of the same name."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return vars(self)[_last(self.__name__)](*arguments, **keywords)


def make_callable(name: str) -> None:
    """Make a module callable, so that `import ganrun.train` and `ganrun.train(...)` go together in any order."""
    if name != "__main__":
        module = sys.modules[name]
        module.__class__ = _CallableModule
        vars(module)["__signature__"] = inspect.signature(vars(module)[_last(name)])  # For help() and editors.


def _last(name: str) -> str:
    return name.rpartition(".")[2]
