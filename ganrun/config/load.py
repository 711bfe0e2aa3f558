"""Reads a config: one YAML file, dotted overrides over it, and all faults in one message.

Imports no torch and no ray, so that a bad config fails in under a second.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc
from pydantic import BaseModel, ValidationError

from ganrun.config import safe_yaml
from ganrun.config.schema import Config
from ganrun.config.validate import conflicts, dotted, faults_of, unknown_names
from ganrun.errors import RunError, UserError
from ganrun.storage import RECORD_BYTES, open_storage

PLACEHOLDERS: dict[str, dict[str, Any]] = {
    "run": {"name": "x"},
    "data": {"shards": "x", "image_size": 64},
    "train": {"total_images": 1},
}
"""Stand in for what is missing or wrong, so that the rest can be checked against itself."""
MOST_VARIABLES = 16
"""Of `${...}`, which may stand for each other: more could unfold to more than any memory holds."""
SECRET = re.compile("SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)


def load_config(path: str | Path, overrides: list[str] | None = None, resolve: bool = True) -> Config:
    """Reads a YAML file, lays `key=value` overrides over it and checks everything.

    Args:
        path: the file, or its address in a bucket.
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
        faults += [fault for keys, fault in conflicts(config) if not keys & unresolved]
    except ValidationError as error:
        wrong = {dotted(detail["loc"]) for detail in error.errors()}
        faults += faults_of(error, unresolved)
        faults += _conflicts_beside(values, wrong | unresolved)
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
        return Config.model_validate(safe_yaml.load(text))
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
    if faults := [fault for _, fault in unknown_names(config)]:
        raise UserError("; ".join(faults))


def differences(before: Config, after: Config, fixed: bool) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ: those that cannot change in a run (`fixed`), or those that can."""
    old, new = flat(before), flat(after)
    return {
        key: (old.get(key), new.get(key))
        for key in old | new
        if old.get(key) != new.get(key) and is_fixed(key) == fixed
    }


def flat(config: Config) -> dict[str, Any]:
    """Every value by its dotted key."""
    return dict(_leaves(config.model_dump()))


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


def json_schema() -> str:
    """JSON schema of the YAML file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _read(path: str | Path, overrides: list[str]) -> DictConfig:
    try:
        text = _fetched(str(path)).decode()
        safe_yaml.check(text, aliases=True)
        tree = OmegaConf.load(io.StringIO(text))
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path}: holds no sections; write e.g. `run: {{name: first}}`")
    if sum(part.count("${") for part in (text, *overrides)) > MOST_VARIABLES:
        raise UserError(f"{path}: more than {MOST_VARIABLES} of ${{...}}; write the values out")
    for override in overrides:
        key, separator, _ = override.partition("=")
        if not separator or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise UserError(f"{override!r}: an override is written key=value, e.g. cluster.workers=2")
        try:
            laid = OmegaConf.from_dotlist([override])
            # A mapping, too, takes the place of the file's: objective.penalties={} means none.
            if OmegaConf.is_dict(OmegaConf.select(laid, key, throw_on_resolution_failure=False)):
                OmegaConf.update(tree, key, {}, merge=False)
            tree = OmegaConf.merge(tree, laid)
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"override {override!r}: {' '.join(str(error).split())}") from error
    assert isinstance(tree, DictConfig)
    return tree


def _fetched(path: str) -> bytes:
    """What is at a path, or at an address in a bucket."""
    parent, _, name = (
        path.rpartition("/") if path.startswith("s3://") else (str(Path(path).parent), "", Path(path).name)
    )
    return open_storage(parent).read(name, RECORD_BYTES)


def _environment(name: str, *default: Any) -> Any:
    """`${oc.env:NAME}`; what it gives is written to config.yaml and printed, so it may be no secret."""
    if SECRET.search(name):
        raise ValueError(f"{name} is the name of a secret, which must not stand in a config")
    return oc.env(name, *default)


OmegaConf.register_resolver("oc.env", _environment, replace=True)


def _interpolate(tree: DictConfig, resolve: bool) -> tuple[dict[str, Any], list[str]]:
    """Fills in `${...}`; what cannot be filled in stays as it is and is a fault if `resolve`."""
    values: Any = OmegaConf.to_container(tree, resolve=False)
    # A section of which all keys are commented out has its defaults.
    values = {
        key: {} if value is None and key in Config.model_fields and key != "tune" else value
        for key, value in values.items()
    }
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
        # The names of mutations have dots of their own.
        if isinstance(value, dict) and f"{prefix}{key}" != "tune.mutations":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _conflicts_beside(values: dict[str, Any], wrong: set[str]) -> list[str]:
    """The contradictions among the keys that are right by themselves."""
    try:
        config = Config.model_validate(_without(values, wrong))
    except ValidationError:
        return []
    return [fault for keys, fault in conflicts(config) if not keys & wrong]


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
