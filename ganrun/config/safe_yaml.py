"""YAML that may come from anybody: nothing deep, and in what ganrun wrote itself no aliases."""

from typing import Any

import yaml

MOST_DEPTH = 32
"""Collections in collections; thousands overrun the parser's stack."""


def check(text: str | bytes, aliases: bool) -> None:
    """Looks at the events of the parser, which are one after another however the text is nested.

    Raises:
        yaml.YAMLError: it is no YAML, is nested too deep, or has aliases though none are allowed.
    """
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise yaml.YAMLError("it has aliases")  # A few lines of them unfold to more than any memory holds.
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MOST_DEPTH}")
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(str(error)) from error


def load(text: bytes) -> Any:
    """What is in a record that ganrun wrote.

    Raises:
        yaml.YAMLError: it is not plain YAML.
    """
    check(text, aliases=False)
    try:
        return yaml.safe_load(text)
    except ValueError as error:  # A date that there is not, and the like.
        raise yaml.YAMLError(str(error)) from error
