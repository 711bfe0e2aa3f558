"""A config and overrides that a program gives, as those of a file and of a command."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ganrun.errors import UserError


def sections(source: Any) -> Any:
    """Return a config as `load_config` takes it: a name stays, a Config or a dict of sections becomes plain values.

    Raises:
        UserError: a value that no YAML file could hold.
    """
    return source if isinstance(source, str | Path) else _plain(source, "config")


def overrides(keywords: Mapping[str, Any]) -> list[str]:
    """Return overrides `key=value` of keywords.

    Args:
        keywords: values by dotted key, or dicts of values by section: `train={"total_images": 100}`.

    Raises:
        UserError: a value that no YAML file could hold, or a section that is no dict.
    """
    found: dict[str, Any] = {}
    for name, value in keywords.items():
        if "." in name or value is None:
            found[name] = value
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            raise UserError(f"{name}: {value!r} is not allowed; give a dict, such as run={{'name': 'first'}}")
    return [f"{key}={json.dumps(_plain(value, key))}" for key, value in found.items()]


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(name): _plain(each, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each, key) for each in value]
    if hasattr(value, "item"):  # A number of numpy or torch.
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise UserError(f"{key}: {value!r} is not allowed; give a number, a word, true, false, None, a list or a dict")
