"""Section `own`: settings of a user's own networks, losses and games.

A module of `run.imports` registers a class for a section, which then is checked and has defaults:

    from ganrun.extend import OWN, Changeable, Settings
    class Stretch(Settings):
        weight: Changeable[float] = 1.0
    OWN["stretch"] = Stretch

All other entries are plain values. A config holds plain values only, so that processes without the user's modules can
read it; `settings_of` makes the objects that the user's code receives.
"""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from ganrun.config.field_types import FIXED, Section
from ganrun.config.imports import describe
from ganrun.config.registry import OWN
from ganrun.errors import UserError

T = TypeVar("T")
Own = Mapping[str, Any]
"""What user code receives: objects of the registered classes, and plain values, by name."""
Changeable = Annotated[T, Field(json_schema_extra={"changeable": True})]
"""`Changeable[float]`: a search, `train.schedule` or the user may change the setting while a run goes on."""


class Settings(Section):
    """Base of a section of `own`: a pydantic model, in which unknown keys and wrong types are errors."""


def plain_name(name: str) -> str:
    """Return a name that can be part of a dotted key."""
    if not re.fullmatch(r"\w+", name):
        raise ValueError("letters, digits and underscores")
    return name


def plain_value(value: Any) -> Any:
    """Return a value that YAML and JSON write and read back as it is."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list():
            return [plain_value(each) for each in value]
        case dict():
            return {plain_name(str(key)): plain_value(each) for key, each in value.items()}
    raise ValueError("a finite number, a word, true, false, null, a list of these, or a section of them")


OwnValues = Annotated[
    dict[Annotated[str, AfterValidator(plain_name)], Annotated[Any, BeforeValidator(plain_value)]],
    Field(json_schema_extra=FIXED),
]


def own_faults(own: Mapping[str, Any], imports: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield faults of the section once the modules of `run.imports` have registered their classes: key, and message."""
    if own and not imports:
        yield "own", f"own: {', '.join(own)}: settings of your own modules, but run.imports names none; name them there"
        return
    for name, value in own.items():
        if isinstance(value, dict) and name not in OWN:
            near = difflib.get_close_matches(name, OWN, n=1)
            hint = (
                f"did you mean own.{near[0]}?" if near else f"register a class: OWN[{name!r}] = ..., or use plain keys"
            )
            yield f"own.{name}", f"own.{name}: no module of run.imports registers this section in OWN; {hint}"
    for name in OWN:
        try:
            plain_value(_parse(name, own).model_dump(mode="json"))
        except ValidationError as error:
            yield from {key: (key, _fault(key, name, detail)) for key, detail in _details(name, error)}.values()
        except Exception as error:
            yield f"own.{name}", f"own.{name}: {describe(error, imports)}"


def filled(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values with the defaults of the registered classes. A section with a fault stays as it is."""
    values = dict(own)
    for name in OWN:
        try:
            values[name] = _parse(name, own).model_dump(mode="json")
        except ValidationError:
            continue
    return values


def settings_of(own: Mapping[str, Any], imports: tuple[str, ...]) -> Own:
    """Return the settings as the user's code receives them.

    Raises:
        UserError: they do not fit the registered classes.
    """
    if faults := [fault for _, fault in own_faults(own, imports)]:
        raise UserError("\n  ".join(faults))
    return {**own, **{name: _parse(name, own) for name in OWN}}


def is_changeable(key: str) -> bool:
    """Return True for a dotted key `own.NAME.KEY` that its class marks as Changeable."""
    _, name, *path = [*key.split("."), ""]
    section: Any = OWN.get(name)
    for number, part in enumerate(path[:-1], 1):
        if not (isinstance(section, type) and issubclass(section, BaseModel) and part in section.model_fields):
            return False
        field = section.model_fields[part]
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("changeable"):
            return number == len(path) - 1
        section = field.annotation
    return False


def _parse(name: str, own: Mapping[str, Any]) -> Settings:
    # As JSON: a list of YAML may then be a tuple or a set, and a word an enum, although types are strict.
    parsed: Settings = OWN[name].model_validate_json(json.dumps(_whole(own.get(name, {}))))
    return parsed


def _whole(value: Any) -> Any:
    """Return a value with floats without fraction as integers, as in all of a config: YAML reads 1e6 as a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return {key: _whole(each) for key, each in value.items()} if isinstance(value, dict) else value


def _details(name: str, error: ValidationError) -> Iterator[tuple[str, ErrorDetails]]:
    for detail in error.errors():
        yield ".".join(["own", name, *map(str, detail["loc"])]), detail


def _fault(key: str, name: str, detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return f"{key}: missing; it has no default"
        case "extra_forbidden":
            return f"{key}: unknown key; known in own.{name}: {', '.join(OWN[name].model_fields)}"
    shown = "a section" if isinstance(detail["input"], dict) else repr(detail["input"])
    wanted = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    wanted = {"an object": "a section of keys and values", "array": "a list"}.get(wanted, wanted)
    return f"{key}: {shown} is not allowed; it should be: {wanted}"
