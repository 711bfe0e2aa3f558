"""Completion of commands in a shell, by argcomplete: `eval "$(register-python-argcomplete ganrun)"`."""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

_STARTED = "_ARGCOMPLETE"
"""Variable by which argcomplete's shell code asks: number of the word, from 1, that names the command."""


def is_asked() -> bool:
    """Return True if the shell has started this process to complete a line."""
    return _STARTED in os.environ


def chosen_verb(verbs: Mapping[str, str]) -> str:
    """Return the verb that the line has before the cursor, whose parser completes the rest; else complete the verb."""
    before = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    words = before.split()
    whole = words[1] if len(words) > 2 or (len(words) == 2 and before[-1:].isspace()) else None
    if whole is not None and whole in verbs:
        os.environ[_STARTED] = "2"  # Its arguments begin after the verb.
        return whole
    parser = argparse.ArgumentParser(prog="ganrun")
    named = parser.add_subparsers(dest="verb")
    for verb, what in verbs.items():
        named.add_parser(verb, help=what)
    return complete(parser)


def complete(parser: argparse.ArgumentParser) -> NoReturn:
    """Complete the line and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)
    raise AssertionError("argcomplete ends the process")


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the arguments CONFIG and key=value, which complete to files, names of shipped configs, and keys."""
    config = parser.add_argument("config", metavar="CONFIG", help=help)
    overrides = parser.add_argument("overrides", metavar="key=value", nargs="*", help="lay a value over the file's")
    if is_asked():
        config.completer = _configs  # type: ignore[attr-defined]
        overrides.completer = _keys  # type: ignore[attr-defined]


def add_name(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the argument NAME, which completes to names of shipped configs."""
    name = parser.add_argument("name", metavar="NAME", nargs="?", help=help)
    if is_asked():
        name.completer = _names  # type: ignore[attr-defined]


def _names(prefix: str, **_: Any) -> list[str]:
    from ganrun.config import shipped

    return [name for name in shipped.purposes() if name.startswith(prefix)]


def _configs(prefix: str, **_: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*_names(prefix), *FilesCompleter(("yaml", "yml"))(prefix)]


def _keys(prefix: str, **_: Any) -> Iterator[str]:
    from ganrun.config.keys import all_keys

    return (f"{key}=" for key in all_keys() if key.startswith(prefix))
