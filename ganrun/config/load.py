"""Read a config: one YAML file, dotted overrides over it, and all faults in one message.

Imports no torch and no ray, so that a bad config fails in under a second.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ganrun.config import safe_yaml
from ganrun.config.imports import import_modules
from ganrun.config.keys import leaves
from ganrun.config.own import filled
from ganrun.config.schema import Config
from ganrun.config.validate import conflicts, dotted, faults_of, unknown_names
from ganrun.errors import RunError, UserError

PLACEHOLDERS: dict[str, dict[str, Any]] = {
    "run": {"name": "x"},
    "data": {"shards": "x", "image_size": 64},
    "train": {"total_images": 1},
}
"""Values in place of missing or wrong ones, so that the conflicts among the rest are found."""


def load_config(
    source: str | Path | Mapping[str, Any], overrides: list[str] | None = None, resolve: bool = True
) -> Config:
    """Read a YAML file, lay `key=value` overrides over it, import the modules of `run.imports` and check everything.

    Args:
        source: the file, its address in a bucket, or the name of a shipped config; or sections of plain values.
        overrides: dotted, such as `cluster.workers=16`; values are YAML.
        resolve: if False, an environment variable that is not set stays `${oc.env:...}` and is no fault.

    Raises:
        UserError: one message with all faults, each with its key, value, what is allowed and the nearest key.
    """
    from ganrun.config.config_file import name_of, read_values  # With OmegaConf, which only this function needs.

    values, faults = read_values(source, overrides or [], resolve)
    faults += _import_faults(values)
    unresolved = {key for key, value in leaves(values) if "${" in str(value)}
    try:
        config = Config.model_validate(values)
        faults += [fault for keys, fault in conflicts(config) if not keys & unresolved]
    except ValidationError as error:
        wrong = {dotted(detail["loc"]) for detail in error.errors()}
        faults += faults_of(error, unresolved)
        faults += _conflicts_beside(values, wrong | unresolved)
        if not faults and not resolve:
            return _unresolved(values, unresolved)
        faults = faults or faults_of(error, set())  # `${` where nothing is filled in, such as a key.
    if faults:
        heading = f"{name_of(source)}: {len(faults)} fault{'s' * (len(faults) > 1)} in the config"
        raise UserError("\n  ".join([heading, *faults]))
    return with_own_defaults(config)


def with_own_defaults(config: Config) -> Config:
    """Return the config with the defaults of the settings that the modules of `run.imports` have registered."""
    return config.model_copy(update={"own": filled(config.own)}) if config.run.imports else config


def parse(text: bytes, where: str) -> Config:
    """Return the config that ganrun wrote to `where`.

    Raises:
        RunError: it is corrupt, or of another version of ganrun.
    """
    try:
        return Config.model_validate(safe_yaml.load(text))
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{where} is corrupt or of another version of ganrun ({reason}); restore it, or begin another run.name"
        ) from error


def check_names(config: Config) -> None:
    """Check the names of networks, games and losses once the modules of `run.imports` have added theirs.

    Raises:
        UserError: no such name.
    """
    if faults := [fault for _, fault in unknown_names(config)]:
        raise UserError("; ".join(faults))


def json_schema() -> str:
    """Return the JSON schema of the YAML file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _import_faults(values: dict[str, Any]) -> list[str]:
    """Import the modules of `run.imports`, which register names and settings, and return the faults of that."""
    run = values.get("run")
    imports = run.get("imports") if isinstance(run, dict) else None
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        return []  # None, or a fault of the type.
    try:
        import_modules(imports)
    except UserError as error:
        return [str(error)]
    return []


def _conflicts_beside(values: dict[str, Any], wrong: set[str]) -> list[str]:
    """Return the conflicts among keys that are valid by themselves."""
    try:
        config = Config.model_validate(_without(values, wrong))
    except ValidationError:
        return []
    with_sections = wrong | {key.rpartition(".")[0] for key in wrong}  # Of a wrong entry, such as a penalty's weight.
    return [fault for keys, fault in conflicts(config) if not keys & with_sections]


def _without(values: dict[str, Any], wrong: set[str]) -> dict[str, Any]:
    """Return the values with a placeholder, or the default, in place of each wrong key."""
    mended: Any = {section: dict(keys) for section, keys in PLACEHOLDERS.items()}
    for key, value in leaves(values):
        if key in wrong or any(key.startswith(f"{part}.") for part in wrong):
            continue
        target = mended
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return mended  # type: ignore[no-any-return]


def _unresolved(values: dict[str, Any], unresolved: set[str]) -> Config:
    """Return a config, for printing only, in which some values are still `${oc.env:...}`."""
    config: Any = Config.model_validate(_without(values, unresolved))
    for key, value in leaves(values):
        if key in unresolved:
            config = _with(config, key.split("."), value)
    return config  # type: ignore[no-any-return]


def _with(section: Any, path: list[str], value: Any) -> Any:
    """Return a section, or a dictionary of one, with one value changed, unchecked. None: there is none yet."""
    name, *rest = path
    if not isinstance(section, BaseModel):
        section = section or {}
        return section | {name: _with(section.get(name), rest, value) if rest else value}
    return section.model_copy(update={name: _with(getattr(section, name, None), rest, value) if rest else value})
