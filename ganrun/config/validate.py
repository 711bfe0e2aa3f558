"""Faults of a config as messages: key, value, what is allowed, and the key that was probably meant."""

import difflib
import sys
from collections.abc import Iterator
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ganrun.config.own import own_faults
from ganrun.config.registry import (
    CONDITIONS,
    EXTRACTORS,
    GAMES,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    PENALTIES,
    RECONSTRUCTION,
    SCORES,
    NetworkFamily,
    is_script,
)
from ganrun.config.schema import Config, FieldConfig, ModelConfig
from ganrun.config.schema_optimizer import PlayerOptimizerConfig
from ganrun.config.schema_tune import MutationConfig, TuneConfig
from ganrun.config.tunable import candidates, is_tunable, with_values
from ganrun.config.validate_cluster import decode_conflicts, environment_faults
from ganrun.config.validate_gain import gain_conflicts
from ganrun.config.validate_games import game_conflicts
from ganrun.config.validate_inversion import inversion_conflicts
from ganrun.config.validate_likelihood import likelihood_conflicts, players
from ganrun.config.validate_objective import (
    SECTIONS,
    condition_conflicts,
    data_conflicts,
    loss_conflicts,
    picture_conflicts,
    size_key,
)
from ganrun.config.validate_parts import optimizer_conflicts, score_conflicts
from ganrun.config.validate_search import schedule_conflicts, search_conflicts
from ganrun.config.validate_text import text_conflicts
from ganrun.config.validate_unused import unused_conflicts


def dotted(location: tuple[int | str, ...]) -> str:
    """Return Pydantic's location as a dotted key, without members of unions and lists."""
    parts = [str(part) for part in location]
    sections = [["objective", name] for name in (*SECTIONS, "likelihood", "gain", "penalties")]
    sections += [["evaluate", "best"], ["evaluate", "duality_gap"], ["tune", "mutations"]]
    deep = parts[0] == "optimizer" or parts[:2] in sections
    return ".".join(parts[: 3 if deep else 2])


def faults_of(error: ValidationError, unresolved: set[str]) -> list[str]:
    """Return one fault per key; Pydantic has one per member of a union."""
    faults: dict[str, str] = {}
    for detail in error.errors():
        unknown, location = detail["type"] == "extra_forbidden", list(map(str, detail["loc"]))
        key = ".".join(location) if unknown else dotted(detail["loc"])
        # Members of unions follow the key.
        if unknown or unresolved.isdisjoint(".".join(location[:end]) for end in range(1, len(location) + 1)):
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
    """Return Pydantic's message, reworded where it names its own classes."""
    if key in ("data.shards", "evaluate.shards"):
        return "a URI or a list of URIs"
    if key == "cluster.workers":
        return "a whole number from 1, or [fewest, most]"
    match detail["type"]:
        case "string_pattern_mismatch":
            return "up to 100 letters, digits, dots, dashes and underscores, such as celeba-64"
        case "model_type" | "dict_type":
            return "a section of keys and values"
        case "tuple_type":
            return "a list"
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")


def _nearest(location: list[str]) -> str:
    """Return the known key that was most likely meant, or an empty string."""
    *parents, last = location
    section: Any = Config
    for name in parents:
        if section is FieldConfig:
            section = MutationConfig if parents[0] == "tune" else FieldConfig
            break  # the name of a field, or of a mutation
        field = section.model_fields.get(name)
        section = field.annotation if field else PlayerOptimizerConfig  # a player of the user's own
        if name == "tune":
            section = TuneConfig
        elif get_origin(section) is dict:
            section = FieldConfig
    if found := difflib.get_close_matches(last, section.model_fields, n=1, cutoff=0.5):
        return f"; did you mean {'.'.join([*parents, found[0]])}?"
    everywhere = [known for known in _all_keys() if known.rpartition(".")[2] == last]
    if everywhere:
        return f"; did you mean {everywhere[0]}?"
    return f"; known here: {', '.join(section.model_fields)}"


def _all_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every key, dotted."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def conflicts(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield conflicts between keys: the keys involved, and the message."""
    yield from _run_conflicts(config)
    yield from unused_conflicts(config)
    yield from search_conflicts(config)
    yield from schedule_conflicts(config)
    yield from _candidate_conflicts(config)


def _run_conflicts(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield conflicts of a run with constant hyper-parameters."""
    slots, batch, workers = config.slots, config.data.batch_size, config.cluster.most_workers
    if config.data.slots is None:
        pass  # The run may have begun with these slots: run_folder/run_config.py checks.
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
    if config.train.capture == "on" and not config.cluster.gpus_per_worker:
        yield (
            {"train.capture", "cluster.gpus_per_worker"},
            "train.capture: on needs a GPU, but cluster.gpus_per_worker is 0; set it to 1, or take auto",
        )
    yield from environment_faults(config)
    yield from decode_conflicts(config)
    yield from _view_conflicts(config)
    yield from data_conflicts(config)
    yield from _model_conflicts(config)
    yield from condition_conflicts(config)
    yield from picture_conflicts(config)
    yield from score_conflicts(config)
    yield from optimizer_conflicts(config)
    yield from loss_conflicts(config)
    yield from likelihood_conflicts(config)
    yield from gain_conflicts(config)
    yield from inversion_conflicts(config)
    yield from text_conflicts(config)
    yield from game_conflicts(config)
    if all(name in sys.modules for name in config.run.imports):  # They have registered what is theirs.
        yield from unknown_names(config)
        yield from (({key}, fault) for key, fault in own_faults(config.own, config.run.imports))
    if not config.run.imports:
        for stranger in sorted(config.optimizer.players - players(config)):
            yield {f"optimizer.{stranger}"}, f"optimizer.{stranger}: unknown key{_nearest(['optimizer', stranger])}"


def _candidate_conflicts(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield conflicts of values that a search or a schedule may reach, at both ends of each key's range."""
    bare = config.model_copy(update={"tune": None, "train": config.train.model_copy(update={"schedule": ()})})
    before = {fault for _, fault in _run_conflicts(bare)}
    for where, key, values in candidates(config):
        if not is_tunable(key):
            continue
        try:
            faults = [fault for _, fault in _run_conflicts(with_values(bare, values)) if fault not in before]
        except ValidationError as error:
            faults = faults_of(error, set())
        for fault in faults:
            told = f"{where}: {fault}"
            if told not in before:
                yield {key}, told
            before.add(told)


def _view_conflicts(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield conflicts of `data.crop`, `data.mirror` and `data.jitter`."""
    data = config.data
    if data.crop not in (None, data.image_size):
        yield (
            {"data.crop", "data.image_size"},
            f"data.crop: {data.crop}, but data.image_size: {data.image_size} is the size after it; set "
            f"data.image_size={data.crop}, or leave data.crop out",
        )
    if data.mirror and not any(field.kind == "image" for field in data.fields.values()):
        yield (
            {"data.mirror", "data.fields"},
            "data.mirror: true, but no field is an image, and nothing else has a mirror image; set it to false",
        )
    if data.jitter and not any(field.kind == "image" for field in data.fields.values()):
        yield (
            {"data.jitter", "data.fields"},
            f"data.jitter: {data.jitter}, but no field is an image, and nothing else can be enlarged; set it to 0",
        )


def _model_conflicts(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield settings that the networks do not support."""
    name, width = config.model.name, config.model.width
    size = config.data.shape(config.objective.target)[1] if config.objective.target in config.data.fields else 0
    family = NETWORKS.get(name) or NetworkFamily("")  # A module of run.imports may support anything.
    if family.image_sizes and size and size not in family.image_sizes:
        allowed = ", ".join(map(str, family.image_sizes))
        yield (
            {"data.image_size", "model.name"},
            f"{size_key(config)}: {size} does not fit model.name: {name}; allowed: {allowed}",
        )
    if width % family.width_multiple:
        yield (
            {"model.width", "model.name"},
            f"model.width: {width} does not fit model.name: {name}; allowed are multiples of {family.width_multiple}",
        )
    if family.image_multiple > 1 and size % family.image_multiple:
        yield (
            {"data.image_size", "model.name"},
            f"{size_key(config)}: {size} does not fit model.name: {name}, which halves it; allowed: multiples of "
            f"{family.image_multiple}",
        )
    for key in family.ignores:
        if (value := getattr(config.model, key)) != ModelConfig.model_fields[key].default:
            yield (
                {f"model.{key}", "model.name"},
                f"model.{key}: {value} has no effect with model.name: {name}; leave it out",
            )
    for switch in family.without:
        if value := getattr(config.model, switch):
            others = ", ".join(other for other in NETWORKS if switch not in NETWORKS[other].without)
            yield (
                {f"model.{switch}", "model.name"},
                f"model.{switch}: {str(value).lower()} does not go with model.name: {name}; it goes with {others}",
            )


def unknown_names(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yield unregistered names: the key, and the message."""
    for key, name, table in (
        ("model.name", config.model.name, NETWORKS),
        ("objective.game", config.objective.game, GAMES),
        ("objective.condition", config.objective.condition_with(config.model.classes), CONDITIONS),
        ("objective.loss", config.objective.loss, LOSSES),
        *(("objective.penalties", name, PENALTIES) for name in config.objective.penalties),
        *(("objective.reconstruction", name, RECONSTRUCTION) for name in config.objective.reconstruction),
        ("evaluate.extractor", config.evaluate.extractor, EXTRACTORS),
        *(("evaluate.metrics", name, SCORES) for name in config.evaluate.metrics),
        *(
            (f"optimizer.{player}.name", config.optimizer.of(player).name, OPTIMIZERS)
            for player in sorted(config.optimizer.players)
        ),
    ):
        if name not in table and not (table is EXTRACTORS and is_script(name)):
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield {key}, f"{key}: {name!r} is not allowed; it should be one of: {', '.join(table)}{hint}"
