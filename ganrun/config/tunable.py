"""Keys that a search or a schedule may change, and configs with changed values."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ganrun.config.own import is_changeable
from ganrun.config.schema import Config
from ganrun.config.schema_objective import ObjectiveConfig

C = TypeVar("C", bound=Config)
Values = dict[str, Any]
"""Hyper-parameters by dotted key, such as `optimizer.generator.learning_rate`."""

STRUCTURAL_IN_OBJECTIVE = ("game", "loss", "discriminator_turns", "feature_matching")
"""Keys that define the players and their batches. Changing one changes the checkpoint or the images of a round."""
TUNABLE = (
    f"optimizer.PLAYER.KEY but name, objective.KEY but {', '.join(STRUCTURAL_IN_OBJECTIVE)}, "
    "train.average_half_life_images, own.SECTION.KEY that its class declares as Changeable[...]"
)


def is_tunable(key: str) -> bool:
    """Return True if a dotted key may change during a run: checkpoints keep their meaning."""
    section, _, rest = key.partition(".")
    match section:
        case "optimizer":
            return rest.count(".") == 1 and not rest.endswith(".name")
        case "own":
            return is_changeable(key)
        case "objective":
            name, _, inner = rest.partition(".")
            if name == "penalties":
                return bool(inner) and "." not in inner
            return rest in ObjectiveConfig.model_fields and rest not in STRUCTURAL_IN_OBJECTIVE
    return key == "train.average_half_life_images"


def value_of(config: Config, key: str) -> Any:
    """Return the value of a dotted key; None if it is unset, such as the weight of an unused penalty."""
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
    """Return the values that `train.schedule` has set after `images`."""
    values: Values = {}
    for entry in config.train.schedule:
        if entry["images"] <= images:
            values |= {key: value for key, value in entry.items() if key != "images"}
    return values


def next_schedule_step(config: Config, images: int) -> int | None:
    """Return the number of images at the next step of `train.schedule`; None if there is none left."""
    ahead = [entry["images"] for entry in config.train.schedule if images < entry["images"] < config.train.total_images]
    return min(ahead, default=None)


def candidates(config: Config) -> Iterator[tuple[str, str, Values]]:
    """Yield (where it is set, key, values) for every extreme value that `tune` and `train.schedule` may set."""
    for key, mutation in (config.tune.mutations if config.tune else {}).items():
        for value in mutation.ends:
            yield f"tune.mutations.{key}", key, {key: value}
    for number, entry in enumerate(config.train.schedule):
        for key, value in entry.items():
            if key != "images":
                yield f"train.schedule.{number}.{key}", key, {key: value}
