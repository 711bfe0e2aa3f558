"""The user's own modules (`run.imports`): their import, and faults in them as one line that names file and line."""

import importlib
import os
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

import ganrun
from ganrun.errors import UserError, escaped

PACKAGE = str(Path(ganrun.__file__).parent)
_PATHS = sysconfig.get_paths()
LIBRARIES = tuple(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
LONGEST_REASON = 300


def import_modules(names: Sequence[str]) -> None:
    """Import the modules of `run.imports`, which add to the registries.

    Raises:
        UserError: a module does not exist, or raises an error.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                raise UserError(
                    f"run.imports: cannot import {name!r}: {error}; install it or add its folder to PYTHONPATH"
                ) from error
            raise UserError(f"run.imports: cannot import {name!r}: {describe(error, names)}") from error


def describe(error: BaseException, imports: Sequence[str]) -> str:
    """Return an error as one line: its place, in the user's own code if it is there, its type and its message."""
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]} ..."
    if isinstance(error, SyntaxError) and error.filename:
        return escaped(f"{_shown(error.filename)}:{error.lineno}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{_shown(frame.filename)}:{frame.lineno}" for frame in frames if _of_ganrun(frame.filename)]
    place = place_of(error, imports) or (ours[-1] if ours else None)
    return escaped(f"{place}: {reason}" if place else reason)


def place_of(error: BaseException, imports: Sequence[str]) -> str | None:
    """Return FILE:LINE of the deepest frame of an error that is in the user's own code; None if there is none.

    That is code called by ganrun which belongs to no library, or to the packages of `run.imports`.
    """
    own, place, called = {name.partition(".")[0] for name in imports}, None, False
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        if _of_ganrun(file):
            called = True
        elif called and (module.partition(".")[0] in own or not _of_library(file)):
            place = f"{_shown(file)}:{line}"
    return place


def _of_ganrun(file: str) -> bool:
    return file.startswith(f"{PACKAGE}{os.sep}")


def _of_library(file: str) -> bool:
    return file.startswith("<") or any(file.startswith(f"{folder}{os.sep}") for folder in LIBRARIES)


def _shown(file: str) -> str:
    """Return a path relative to the working directory if it is in it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
