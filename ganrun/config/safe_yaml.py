"""Parsing of untrusted YAML: bounded depth, and no aliases in ganrun's own records."""

from typing import Any

import yaml

MOST_DEPTH = 32
"""Largest depth of nested collections; thousands overflow the parser's stack."""


def check(text: str | bytes, aliases: bool) -> None:
    """Check a text by the parser's event stream, which is flat however deep the text is nested.

    Raises:
        yaml.YAMLError: the text is not YAML, is nested too deep, or has aliases that are not allowed.
    """
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise yaml.YAMLError("it has aliases")  # A few lines of aliases can expand beyond any memory.
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MOST_DEPTH}")
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(str(error)) from error


def load(text: bytes) -> Any:
    """Parse a record that ganrun wrote.

    Raises:
        yaml.YAMLError: it is not plain YAML.
    """
    check(text, aliases=False)
    try:
        return yaml.safe_load(text)
    except ValueError as error:  # For example an impossible date.
        raise yaml.YAMLError(str(error)) from error
