"""Which keys of a config a search or a schedule may change, and the config with them changed."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ganrun.config.schema import Config, ObjectiveConfig

C = TypeVar("C", bound=Config)
Values = dict[str, Any]
"""Hyper-parameters by dotted key, such as `optimizer.generator.learning_rate`."""

STRUCTURAL_IN_OBJECTIVE = ("game", "loss", "discriminator_turns", "feature_matching")
"""What the players are and see: with another of these a checkpoint, or the count of images in a round, is another."""
TUNABLE = (
    f"optimizer.PLAYER.KEY, objective.KEY but {', '.join(STRUCTURAL_IN_OBJECTIVE)}, train.average_half_life_images"
)


def is_tunable(key: str) -> bool:
    """Whether a dotted key may change in the middle of a run: whether a checkpoint means the same before and after."""
    section, _, rest = key.partition(".")
    match section:
        case "optimizer":
            return rest.count(".") == 1
        case "objective":
            name, _, inner = rest.partition(".")
            if name == "penalties":
                return bool(inner) and "." not in inner
            return rest in ObjectiveConfig.model_fields and rest not in STRUCTURAL_IN_OBJECTIVE
    return key == "train.average_half_life_images"


def value_of(config: Config, key: str) -> Any:
    """What a dotted key is in a config; None where it is not set, as a penalty's weight may be."""
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """Return the config with some values changed.

    Raises:
        pydantic.ValidationError: a value is not allowed for its key.
    """
    if not values:
        return config
    tree = config.model_dump(mode="json")
    for key, value in values.items():
        *parents, last = key.split(".")
        target = tree
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = copy.deepcopy(value)
    return type(config).model_validate(tree)


def scheduled(config: Config, images: int) -> Values:
    """What `train.schedule` has set by so many images."""
    values: Values = {}
    for entry in config.train.schedule:
        if entry["images"] <= images:
            values |= {key: value for key, value in entry.items() if key != "images"}
    return values


def next_schedule_step(config: Config, images: int) -> int | None:
    """At how many images `train.schedule` changes something next; None: not any more in this run."""
    ahead = [entry["images"] for entry in config.train.schedule if images < entry["images"] < config.train.total_images]
    return min(ahead, default=None)


def candidates(config: Config) -> Iterator[tuple[str, str, Values]]:
    """Every value at an end of what `tune` and `train.schedule` may set: where that is said, the key, the values."""
    for key, mutation in (config.tune.mutations if config.tune else {}).items():
        for value in mutation.ends:
            yield f"tune.mutations.{key}", key, {key: value}
    for number, entry in enumerate(config.train.schedule):
        for key, value in entry.items():
            if key != "images":
                yield f"train.schedule.{number}.{key}", key, {key: value}
