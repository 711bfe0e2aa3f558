"""Configs by dotted key: their values, fixed keys, and differences."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ganrun.config.own import is_changeable
from ganrun.config.schema import Config


def differences(before: Config, after: Config, fixed: bool) -> dict[str, tuple[Any, Any]]:
    """Return {key: (value before, value after)} for keys that differ, either the fixed ones or the others."""
    old, new = flat(before), flat(after)
    return {
        key: (old.get(key), new.get(key))
        for key in old | new
        if old.get(key) != new.get(key) and is_fixed(key) == fixed
    }


def flat(config: Config) -> dict[str, Any]:
    """Return every value by its dotted key."""
    return dict(leaves(config.model_dump()))


def is_fixed(key: str) -> bool:
    """Return True if a dotted key cannot change once a run has begun."""
    if key.startswith("own."):
        return not is_changeable(key)
    section: type[BaseModel] = Config
    for name in key.split("."):
        if name not in section.model_fields:
            return False  # Settings of a player of the user's own.
        field = section.model_fields[name]
        if get_origin(field.annotation) is dict:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return bool(isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("fixed"))


def all_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a config that has a value."""
    for name, field in section.model_fields.items():
        either = get_args(field.annotation) if get_origin(field.annotation) is not dict else ()
        kinds = [kind for kind in either or (field.annotation,) if kind is not type(None)]
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(below) < len(kinds):  # A number, or one that changes.
            yield f"{prefix}{name}"
        for kind in below:
            yield from all_keys(kind, f"{prefix}{name}.")


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything that is not a section."""
    for key, value in values.items():
        # The names of mutations have dots of their own.
        if isinstance(value, dict) and f"{prefix}{key}" != "tune.mutations":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
