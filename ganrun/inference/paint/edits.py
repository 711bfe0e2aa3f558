"""Edits: a drawing and what is asked of a run, as the page sends them and as the log keeps them."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ganrun.errors import UserError

Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Latent = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=100_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Label = Annotated[int, Field(ge=0)]


class Point(BaseModel):
    """A latent and its class."""

    latent: Latent
    label: Label | None = None


class Edit(BaseModel):
    """A drawing, and what is asked of the run. Also a line of the log of edits."""

    model_config = ConfigDict(extra="forbid")
    drawing: Annotated[str, Field(max_length=2**23)]
    """PNG in base64; what is transparent is not drawn."""
    start: Point | None = None
    """The latent that is edited; None: there is none."""
    label: Label | None = None
    """Class of the result; None: the best is searched."""
    strokes: Weight = 1.0
    """Weight of the distance from the drawing."""
    keep: Weight = 0.3
    """Weight of the distance from the picture before, where nothing is drawn."""
    realism: Weight = 0.0
    """Weight of the discriminator's opinion."""
    perceptual: Weight = 0.0
    """Weight of the distance of features of a frozen network."""
    seed: Seed = 0
    candidates: Annotated[int, Field(ge=1, le=16)] = 6
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Time after which the search ends."""
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Steps planned; None: as many as the time allows."""
    made: Annotated[int, Field(ge=0)] | None = None
    """Step to stop at, when an edit is done again; None: none."""


class Sample(BaseModel):
    """Random images to begin with."""

    model_config = ConfigDict(extra="forbid")
    seed: Seed = 0
    label: Label | None = None


class Walk(BaseModel):
    """A walk between two results."""

    model_config = ConfigDict(extra="forbid")
    begin: Point
    end: Point
    steps: Annotated[int, Field(ge=1, le=64)]


Drawing = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Colours uint8 [H, W, C], and how much of each pixel is drawn, [H, W] in [0, 1]."""
Watch = Callable[[float, Callable[[], str]], bool]
"""Told the share of the work that is done, and a function that returns the best image so far as a PNG in base64;
returns False to stop."""
Decode = Callable[[bytes, str], Drawing]
"""(encoded picture, name for messages) -> drawing in the run's size. Raises UserError."""
T = TypeVar("T", bound=BaseModel)


class Painter(Protocol):
    """A run that answers drawings."""

    size: int
    """Pixels a side of a drawing."""
    channels: int

    def about(self) -> dict[str, Any]:
        """Return what a page must know of the run."""

    def answer(self, edit: Edit, drawing: Drawing, watch: Watch) -> dict[str, Any]:
        """Return the results of an edit, as JSON.

        Raises:
            UserError: it cannot be done.
        """


def parsed(model: type[T], body: str | bytes) -> T:
    """Parse an edit or a walk.

    Raises:
        UserError: it is none; with the first fault.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}") from error


def png_of(edit: Edit) -> bytes:
    """Return the drawing of an edit.

    Raises:
        UserError: it is no base64.
    """
    try:
        return base64.b64decode(edit.drawing, validate=True)
    except ValueError as error:
        raise UserError("drawing: no base64; give a PNG in base64") from error


def png_of_drawing(drawing: Drawing) -> str:
    """Return a drawing as a PNG with transparency, in base64."""
    colours, drawn = drawing
    alpha = (drawn[..., None] * 255).round().astype(np.uint8)
    rgb = np.broadcast_to(colours, (*colours.shape[:2], 3))
    file = io.BytesIO()
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def log_line(edit: Edit, result: dict[str, Any]) -> str:
    """Return a line of the log of edits: the edit as it was done, and a hash of its best image."""
    done = edit.model_copy(update={"steps": result["steps"], "made": result["made"]})
    return json.dumps({"edit": done.model_dump(exclude_none=True), "image_sha256": _digest(result)}) + "\n"


def replay(painter: Painter, lines: Iterable[str], decode: Decode, where: str) -> Iterator[tuple[bytes, bool]]:
    """Do the edits of a log again. Yield the PNG of each best image, and whether it is the logged one to the last bit.

    Raises:
        UserError: a line is no edit of this run; with its number.
    """
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            edit, digest = parsed(Edit, json.dumps(record["edit"])), record["image_sha256"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{where}: line {number} is no edit; give a file that ganrun paint --log wrote") from error
        try:
            result = painter.answer(edit, decode(png_of(edit), "drawing"), lambda share, image: True)
        except UserError as error:
            raise UserError(f"{where}: line {number}: {error}") from error
        yield base64.b64decode(result["candidates"][0]["image"]), _digest(result) == digest


def _digest(result: dict[str, Any]) -> str:
    return hashlib.sha256(base64.b64decode(result["candidates"][0]["image"])).hexdigest()
