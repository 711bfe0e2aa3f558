"""Reads a config: one YAML file, dotted overrides over it, and all faults in one message.

Imports no torch and no ray, so that a bad config fails in under a second.
"""

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ganrun.errors import RunError, UserError
from ganrun.sections import Config, OptimizerConfig
from ganrun.tables import EXTRACTORS, GAMES, IMAGE_SIZES, LOSSES, NETWORKS

PLACEHOLDERS: dict[str, dict[str, Any]] = {
    "run": {"name": "x"},
    "data": {"shards": "x", "image_size": 64},
    "train": {"total_images": 1},
}
"""Stand in for what is missing or wrong, so that the rest can be checked against itself."""


def load(path: str | Path, overrides: list[str] | None = None, resolve: bool = True) -> Config:
    """Reads a YAML file, lays `key=value` overrides over it and checks everything.

    Args:
        path: the file.
        overrides: dotted, such as `cluster.workers=16`; values are YAML.
        resolve: whether an environment variable that is not set is a fault; if not, it stays `${oc.env:...}`.

    Raises:
        UserError: one message with all faults, each with its key, value, what is allowed and the nearest key.
    """
    tree = _read(path, overrides or [])
    values, faults = _interpolate(tree, resolve)
    unresolved = {key for key, value in _leaves(values) if "${" in str(value)}
    try:
        config = Config.model_validate(values)
        faults += [fault for keys, fault in _contradictions(config) if not keys & unresolved]
    except ValidationError as error:
        wrong = {_dotted(detail["loc"]) for detail in error.errors()}
        faults += _faults(error, unresolved)
        faults += _contradictions_beside(values, wrong | unresolved)
        if not faults:
            return _unresolved(values, unresolved)
    if faults:
        heading = f"{path}: {len(faults)} fault{'s' * (len(faults) > 1)} in the config"
        raise UserError("\n  ".join([heading, *faults]))
    return config


def parse(text: bytes, where: str) -> Config:
    """The config that ganrun wrote to `where`.

    Raises:
        RunError: it is damaged, or of another version of ganrun.
    """
    try:
        return Config.model_validate(yaml.safe_load(text))
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{where} is damaged or of another version of ganrun ({reason}); restore it, or begin another run.name"
        ) from error


def check_names(config: Config) -> None:
    """Checks the names of networks, games and losses once the modules of `run.imports` have added theirs.

    Raises:
        UserError: no such name.
    """
    if faults := [fault for _, fault in _unknown_names(config)]:
        raise UserError("; ".join(faults))


def differences(before: Config, after: Config, fixed: bool) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ: those that cannot change in a run (`fixed`), or those that can."""
    old, new = dict(_leaves(before.model_dump())), dict(_leaves(after.model_dump()))
    return {
        key: (old.get(key), new.get(key))
        for key in old | new
        if old.get(key) != new.get(key) and is_fixed(key) == fixed
    }


def is_fixed(key: str) -> bool:
    """Whether a dotted key cannot change once a run has begun."""
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


def schema() -> str:
    """JSON schema of the YAML file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _read(path: str | Path, overrides: list[str]) -> DictConfig:
    try:
        tree = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path}: holds no sections; write e.g. `run: {{name: first}}`")
    for override in overrides:
        key, separator, _ = override.partition("=")
        if not separator or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise UserError(f"{override!r}: an override is written key=value, e.g. cluster.workers=2")
    try:
        merged = OmegaConf.merge(tree, OmegaConf.from_dotlist(overrides))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"overrides {overrides}: {' '.join(str(error).split())}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _interpolate(tree: DictConfig, resolve: bool) -> tuple[dict[str, Any], list[str]]:
    """Fills in `${...}`; what cannot be filled in stays as it is and is a fault if `resolve`."""
    values: Any = OmegaConf.to_container(tree, resolve=False)
    # A section of which all keys are commented out has its defaults.
    values = {key: {} if value is None and key in Config.model_fields else value for key, value in values.items()}
    faults = []
    for key, value in list(_leaves(values)):
        if "${" in str(value):
            *parents, last = key.split(".")
            target = values
            try:
                for parent in parents:
                    target = target[parent]
                found = OmegaConf.select(tree, key, throw_on_resolution_failure=True)
                # A list with a variable in it, or a whole section that stands for another.
                target[last] = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
            except (OmegaConfBaseException, KeyError) as error:
                if resolve:
                    reason = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ")
                    faults.append(f"{key}: {value}: {reason}")
    return values, faults


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no section."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _dotted(location: tuple[int | str, ...]) -> str:
    """Pydantic's location without the members of unions and lists."""
    parts = [str(part) for part in location]
    return ".".join(parts[: 3 if parts[0] == "optimizer" else 2])


def _faults(error: ValidationError, unresolved: set[str]) -> list[str]:
    """One a key, though each member of a union has its own."""
    faults: dict[str, str] = {}
    for detail in error.errors():
        key = _dotted(detail["loc"])
        if key not in unresolved or detail["type"] == "extra_forbidden":
            faults.setdefault(key, _fault(key, detail))
    return list(faults.values())


def _fault(key: str, detail: ErrorDetails) -> str:
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return f"{key}: unknown key{_nearest([str(part) for part in detail['loc']])}"
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    value = detail["input"]
    shown = "a section" if isinstance(value, dict) else repr(value)
    return f"{key}: {shown} is not allowed; it should be: {_allowed(key, detail)}"


def _allowed(key: str, detail: ErrorDetails) -> str:
    """Pydantic's words, but where they speak of its own classes."""
    if key == "data.shards":
        return "a URI or a list of URIs"
    match detail["type"]:
        case "string_pattern_mismatch":
            return "up to 100 letters, digits, dots, dashes and underscores, such as celeba-64"
        case "model_type":
            return "a section of keys and values"
        case "tuple_type":
            return "a list"
    return detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _nearest(location: list[str]) -> str:
    """The known key that was most likely meant."""
    *parents, last = location
    section: type[BaseModel] = Config
    for name in parents:
        section = section.model_fields[name].annotation  # type: ignore[assignment]
    if found := difflib.get_close_matches(last, section.model_fields, n=1, cutoff=0.5):
        return f"; did you mean {'.'.join([*parents, found[0]])}?"
    everywhere = [known for known, _ in _all_keys() if known.rpartition(".")[2] == last]
    if everywhere:
        return f"; did you mean {everywhere[0]}?"
    return f"; known here: {', '.join(section.model_fields)}"


def _all_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, description) of every key."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""


def _contradictions(config: Config) -> Iterator[tuple[set[str], str]]:
    """Faults that no single key shows: the keys that take part, and the message."""
    slots, batch, workers = config.slots, config.data.batch_size, config.cluster.workers
    size, model, fields = config.data.image_size, config.model.name, config.data.fields
    if config.data.slots is None:
        pass  # They may be those of a run that is begun: preflight.settle looks.
    elif workers > slots:
        yield (
            {"cluster.workers", "data.slots"},
            f"cluster.workers: {workers} is more than data.slots: {slots}; each worker needs a slot",
        )
    elif batch % slots:
        yield (
            {"data.batch_size", "data.slots", "cluster.workers"},
            f"data.batch_size: {batch} cannot be cut into data.slots: {slots}; take a multiple of {slots}",
        )
    if "image" not in fields or fields["image"].kind != "image":
        yield (
            {"data.fields"},
            "data.fields: without an image field there is nothing to learn; add image: image",
        )
    if size not in IMAGE_SIZES.get(model, [size]):
        allowed = ", ".join(map(str, IMAGE_SIZES[model]))
        yield (
            {"data.image_size", "model.name"},
            f"data.image_size: {size} does not fit model.name: {model}; allowed: {allowed}",
        )
    if not config.run.imports:
        for stranger in sorted(config.optimizer.players - OptimizerConfig.model_fields.keys()):
            yield {f"optimizer.{stranger}"}, f"optimizer.{stranger}: unknown key{_nearest(['optimizer', stranger])}"
        yield from _unknown_names(config)


def _contradictions_beside(values: dict[str, Any], wrong: set[str]) -> list[str]:
    """The contradictions among the keys that are right by themselves."""
    try:
        config = Config.model_validate(_without(values, wrong))
    except ValidationError:
        return []
    return [fault for keys, fault in _contradictions(config) if not keys & wrong]


def _without(values: dict[str, Any], wrong: set[str]) -> dict[str, Any]:
    """The values but for the keys that are wrong, where a placeholder or the default stands."""
    mended: Any = {section: dict(keys) for section, keys in PLACEHOLDERS.items()}
    for key, value in _leaves(values):
        if key in wrong or any(key.startswith(f"{part}.") for part in wrong):
            continue
        target = mended
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return mended  # type: ignore[no-any-return]


def _unknown_names(config: Config) -> Iterator[tuple[set[str], str]]:
    for key, name, table in (
        ("model.name", config.model.name, NETWORKS),
        ("objective.game", config.objective.game, GAMES),
        ("objective.loss", config.objective.loss, LOSSES),
        ("evaluate.extractor", config.evaluate.extractor, EXTRACTORS),
    ):
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield {key}, f"{key}: {name!r} is not allowed; it should be one of: {', '.join(table)}{hint}"


def _unresolved(values: dict[str, Any], unresolved: set[str]) -> Config:
    """For printing only: a config of which some values wait for their environment variable."""
    config: Any = Config.model_validate(_without(values, unresolved))
    for key, value in _leaves(values):
        if key in unresolved:
            config = _with(config, key.split("."), value)
    return config  # type: ignore[no-any-return]


def _with(section: BaseModel, path: list[str], value: Any) -> BaseModel:
    """A section with one value changed, unchecked."""
    name, *rest = path
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})
