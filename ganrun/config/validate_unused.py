"""Settings that have no effect without another: the keys involved, and the message."""

from collections.abc import Iterator
from typing import Any, TypeVar

from ganrun.config.schema import Config
from ganrun.config.tunable import candidates
from ganrun.config.validate_parts import Faults

C = TypeVar("C", bound=Config)

NEEDED = {
    "objective.ada_images": ("objective.ada_target",),
    "objective.ada_transforms": ("objective.ada_target", "objective.ada_probability"),
    "objective.instance_noise_images": ("objective.instance_noise",),
    "objective.path_length_every_rounds": ("objective.path_length",),
    "objective.penalty_every_rounds": ("objective.penalties",),
    "evaluate.where": ("evaluate.every_images",),
}
"""Settings without effect by themselves, and those of which one must be set."""


def unused_conflicts(config: Config) -> Faults:
    """Yield settings without the one that they belong to."""
    for key in _unused(config):
        others = " or ".join(NEEDED[key])
        yield (
            {key, *NEEDED[key]},
            f"{key}: {_shown(_value(config, key))} has no effect without {others}; set {others}, or leave it at "
            f"{_shown(_default(config, key))}",
        )


def without_unused(config: C) -> C:
    """Return the config with the defaults of settings without effect, which older versions of ganrun accepted."""
    for key in list(_unused(config)):
        section, name = key.split(".")
        settings = getattr(config, section).model_copy(update={name: _default(config, key)})
        config = config.model_copy(update={section: settings})
    return config


def _unused(config: Config) -> Iterator[str]:
    """Yield keys of NEEDED that are set, and of whose others none is. A search or a schedule may set them later.

    Those of `objective` only of the game `gan`: other games of ganrun refuse them all, those of a user's own may take
    any.
    """
    later = {key for _, key, _ in candidates(config)}
    for key, others in NEEDED.items():
        may_be_set = any(_value(config, other) or _is_in(other, later) for other in others)
        if key.startswith("objective.") and config.objective.game != "gan":
            continue
        if _value(config, key) != _default(config, key) and not may_be_set:
            yield key


def _value(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _default(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return type(getattr(config, section)).model_fields[name].default


def _shown(value: Any) -> str:
    """Return a value as it is written in YAML."""
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


def _is_in(key: str, keys: set[str]) -> bool:
    """Return True if a key, or one of its entries such as the weight of a penalty, is among others."""
    return any(other == key or other.startswith(f"{key}.") for other in keys)
