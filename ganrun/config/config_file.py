"""A config file as a tree of values: YAML, overrides over it, `${...}` filled in.

The only module that imports OmegaConf, which takes an eighth of a command's start-up: `load_config` imports it when a
file is read, so `--help`, workers and the sidecar do without.
"""

import io
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from ganrun.config import safe_yaml, shipped
from ganrun.config.keys import leaves
from ganrun.config.schema import Config
from ganrun.config.validate_cluster import SECRET
from ganrun.errors import UserError
from ganrun.storage import RECORD_BYTES, open_storage

logger = logging.getLogger(__name__)
MOST_VARIABLES = 16
"""Most `${...}` in a config. They may stand for each other: more could unfold to more than any memory holds."""


ConfigSource = str | Path | Mapping[str, Any]
"""A config as a user names it: a file, its address in a bucket, the name of a shipped one, or its sections."""


def read_values(source: ConfigSource, overrides: list[str], resolve: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a config with the overrides over them and `${...}` filled in, and the faults of those.

    Args:
        source: the config.
        overrides: `key=value`, the key dotted, the value YAML.
        resolve: if False, `${...}` that cannot be filled in stays and is no fault.

    Raises:
        UserError: there is no such file, it is not YAML, or an override is not `key=value`.
    """
    return _interpolate(_read(source, overrides), resolve)


def name_of(source: ConfigSource) -> str:
    """Return what messages call a config."""
    return "config" if isinstance(source, Mapping) else str(source)


def _read(source: ConfigSource, overrides: list[str]) -> DictConfig:
    path = name_of(source)
    try:
        text = json.dumps(source) if isinstance(source, Mapping) else _fetch(path).decode()
        safe_yaml.check(text, aliases=True)
        tree = OmegaConf.load(io.StringIO(text))
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file; {shipped.hint(path)}") from None
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
            override_tree = OmegaConf.from_dotlist([override])
            # A mapping replaces the file's: objective.penalties={} means none.
            if OmegaConf.is_dict(OmegaConf.select(override_tree, key, throw_on_resolution_failure=False)):
                OmegaConf.update(tree, key, {}, merge=False)
            tree = OmegaConf.merge(tree, override_tree)
        except Exception as error:  # Of YAML, of OmegaConf, or what its merging of unlike values runs into.
            raise UserError(f"override {override!r}: {' '.join(str(error).split())}") from error
    assert isinstance(tree, DictConfig)
    return tree


def _fetch(path: str) -> bytes:
    """Return the content of a file, of an object in a bucket, or of a shipped config where no file has its name."""
    parent, _, name = (
        path.rpartition("/") if path.startswith("s3://") else (str(Path(path).parent), "", Path(path).name)
    )
    try:
        return open_storage(parent).read(name, RECORD_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        if found := shipped.find(path):
            logger.debug("config: %s", found)
            return found.read_bytes()
        raise


def _environment(name: str, *default: Any) -> Any:
    """Return the variable of `${oc.env:NAME}`. It is printed and written to config.yaml, so a secret is refused."""
    if SECRET.search(name):
        raise ValueError(f"{name} is the name of a secret, which must not stand in a config")
    return oc.env(name, *default)


OmegaConf.register_resolver("oc.env", _environment, replace=True)


def _interpolate(tree: DictConfig, resolve: bool) -> tuple[dict[str, Any], list[str]]:
    values: Any = OmegaConf.to_container(tree, resolve=False)
    # A section whose keys are all commented out has its defaults.
    values = {
        key: {} if value is None and key in Config.model_fields and key != "tune" else value
        for key, value in values.items()
    }
    faults = []
    for key, value in list(leaves(values)):
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
