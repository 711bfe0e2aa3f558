"""Value types of a config, each with its range."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def whole(value: Any) -> Any:
    """Convert a float without fraction (YAML reads 1e6 as a float) to int; leave the rest to the validator."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def listed(value: Any) -> Any:
    """Convert a list to an immutable tuple."""
    return tuple(value) if isinstance(value, list) else value


def fewest_and_most(value: Any) -> Any:
    """Convert to int or (fewest, most); anything else is one error instead of one per member of the union."""
    ends = [whole(end) for end in (value if isinstance(value, list | tuple) else [value])]
    if len(ends) > 2 or not ends or any(type(end) is not int or end < 1 for end in ends) or ends != sorted(ends):
        raise ValueError("a whole number from 1, or [fewest, most]")
    return tuple(ends) if len(ends) == 2 else ends[0]


def on_or_off(value: Any) -> Any:
    """Convert YAML's `on` and `off`, which it reads as booleans, back to words."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def as_text(value: Any) -> Any:
    """Convert numbers and booleans of a mapping to text, as environment variables have them: true is 1."""
    if not isinstance(value, dict):
        return value
    return {name: str(int(text) if isinstance(text, bool) else text) for name, text in value.items()}


Whole = Annotated[int, BeforeValidator(whole), Field(ge=0)]
Count = Annotated[int, BeforeValidator(whole), Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Mode = Literal["min", "max"]
Workers = Annotated[int | tuple[int, int], BeforeValidator(fewest_and_most)]
Variables = Annotated[dict[str, str], BeforeValidator(as_text)]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
FIXED = {"fixed": True}
"""Schema entry of a key that cannot change once a run has begun."""


class Section(BaseModel):
    """Section of the config: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


EXTENSIONS = {
    "image": ("png", "jpg", "jpeg", "webp"),
    "label": ("cls",),
    "text": ("txt",),
    "vector": ("json", "npy"),
    "point": ("json", "npy"),
    "embedding": ("text.npy",),
}
"""Extensions of each kind of field, tried in this order, unless the config names one."""


class FieldConfig(Section):
    """Field of a sample; `label: label` is short for `label: {kind: label}`."""

    kind: Literal["image", "label", "text", "vector", "point", "embedding"]
    """Type of the field. image: 8 bits per channel, data.image_size pixels square; label: integer; text: UTF-8;
    vector: numbers as JSON or .npy; point: vector of data.channels numbers, treated as an image of one pixel;
    embedding: of the lines of the text, by ganrun prepare --embed."""
    extension: str | None = None
    """Extension in the shard; unset: png, jpg, jpeg or webp (NAME.png unless it is image); cls; txt; json or npy."""
    channels: Literal[1, 3] | None = None
    """Channels of an image field; unset: data.channels."""
    size: Annotated[Count | None, Field(ge=8, le=1024)] = None
    """Height and width of an image field in pixels; unset: data.image_size."""

    def extensions(self, name: str) -> tuple[str, ...]:
        """Return the file extensions in the shard, tried in this order, of the field called `name`."""
        of_kind = EXTENSIONS[self.kind]
        named = tuple(f"{name}.{each}" for each in of_kind) if self.kind == "image" and name != "image" else of_kind
        return (self.extension,) if self.extension else named


def kind(value: Any) -> Any:
    """Convert the short form of a field, its kind alone."""
    return {"kind": value} if isinstance(value, str) else value
