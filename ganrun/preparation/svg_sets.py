"""Source of SVG sets in Iconify's format (npm package @iconify/json): a JSON file a set, with drawings by name.

Several sets are paired by the names of their drawings: each is one picture of a sample. With one name of a field they
are put together instead: each drawing of each set is a sample. The name of a drawing, with spaces for hyphens, is the
text. The bundled data set was made from the package unpacked in FOLDER:

    python -m ganrun.prepare iconify:FOLDER/json/fluent-emoji-flat.json,fluent-emoji-high-contrast.json \
        ganrun/data/fluent-emoji --names image,lines --gzip --embed
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import Pixels, UnreadableError
from ganrun.preparation.sources import (
    IMAGE,
    Item,
    Part,
    Remarks,
    Shapes,
    hash_of,
    key_of,
    shuffled_parts,
)
from ganrun.storage import expand_user

DEFAULT_SIZE = 64
"""Size of the pictures in pixels, unless --size says another."""
DEFAULT_BOX = 16
"""Width and height of a drawing that states none, by Iconify's format."""
OF = "@"
"""Between the name of a drawing and that of its set, where sets are put together. Names in Iconify's sets have none."""


@dataclass(frozen=True)
class SvgSet:
    """One set.

    Attributes:
        file: its file.
        drawings: SVG documents by name.
        channels: 1 if all drawings are of one colour, drawn in black; 3 otherwise.
        licence: title, author and licence in a line.
        aliases: names of mirrored, turned or renamed copies of drawings, which are left out.
    """

    file: Path
    drawings: dict[str, str]
    channels: int
    licence: str
    aliases: list[str]


@dataclass(frozen=True)
class SvgSource:
    """Drawings of one or more sets, rendered on white when they are packed.

    Attributes:
        sets: the sets by field, one of them `image`, with the drawings that all of them have.
        size: height and width of the pictures in pixels.
        remarks: what is left out, and the licences.
        name: name with the version of the renderer, since another one may draw other pixels.
    """

    sets: dict[str, SvgSet]
    size: int
    remarks: Remarks
    name: str
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(sorted(self.sets[IMAGE].drawings)))

    def identity(self) -> str:
        """Return a hash of all drawings and their fields."""
        return hash_of(
            repr((name, each.channels, sorted(each.drawings.items()))).encode() for name, each in self.sets.items()
        )

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Return the shape of each set."""
        return {name: {(self.size, self.size, each.channels): str(each.file)} for name, each in self.sets.items()}

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the drawings over shards."""
        return shuffled_parts(len(self.names), shard_samples, image_bytes)

    def items(self, part: Part) -> Iterator[Item]:
        """Yield rendered drawings, with their name as .txt."""
        draw = _renderer()
        for place, number in enumerate(part.numbers):
            key, name = key_of(part, place), self.names[number]
            where = escaped(f"{self.sets[IMAGE].file}, {name!r}")
            text = {"txt": name.partition(OF)[0].replace("-", " ").encode(errors="replace")}
            try:
                drawn = {each: draw(svgs.drawings[name], self.size, svgs.channels) for each, svgs in self.sets.items()}
            except UnreadableError as error:
                yield Item(key, where, None, text, str(error))
            else:
                yield Item(key, where, drawn.pop(IMAGE), text, pictures=drawn)


def open_svg_sets(path: str, names: tuple[str, ...], size: int | None) -> SvgSource:
    """Read sets, and take the drawings that all of them have.

    Args:
        path: files of the sets with commas between them; one without a folder lies beside the first.
        names: fields of the sets; one is `image`. `image` alone puts several sets together.
        size: height and width of the pictures in pixels; None: `DEFAULT_SIZE`.

    Raises:
        UserError: a file is no such set, no drawing is in all of them, the number of names is not that of the sets, or
            the renderer is not installed.
    """
    _renderer()
    first, *others = path.split(",")
    files = [Path(expand_user(first))]
    files += [Path(expand_user(other)) if "/" in other else files[0].parent / other for other in others]
    if names == (IMAGE,) and len(files) > 1:
        return _together(path, list(map(_read, files)), size)
    if len(names) != len(files):
        raise UserError(
            f"--names {','.join(names)}: {len(names)} for {len(files)} sets; name the field of each, such as "
            "image,lines, or image alone to put them together"
        )
    sets = dict(zip(names, map(_read, files), strict=True))
    shared = set.intersection(*(set(each.drawings) for each in sets.values()))
    if not shared:
        raise UserError(f"iconify:{path}: no drawing is in all sets; give sets whose drawings have the same names")
    left_out = [line for each in sets.values() for line in _left_out(each, shared)]
    kept = {
        name: SvgSet(each.file, {key: each.drawings[key] for key in sorted(shared)}, each.channels, each.licence, [])
        for name, each in sets.items()
    }
    remarks = Remarks(left_out=tuple(left_out), licences=tuple(each.licence for each in kept.values()))
    return SvgSource(kept, size or DEFAULT_SIZE, remarks, _source_name())


def _together(path: str, sets: list[SvgSet], size: int | None) -> SvgSource:
    """Return all drawings of all sets, one a sample."""
    drawings = {f"{name}{OF}{svgs.file.stem}": svg for svgs in sets for name, svg in svgs.drawings.items()}
    licences = tuple(svgs.licence for svgs in sets)
    whole = SvgSet(Path(path), drawings, max(svgs.channels for svgs in sets), "; ".join(licences), [])
    left_out = [line for svgs in sets for line in _left_out(svgs, set(svgs.drawings))]
    remarks = Remarks(left_out=tuple(left_out), licences=licences)
    return SvgSource({IMAGE: whole}, size or DEFAULT_SIZE, remarks, _source_name())


def _source_name() -> str:
    return f"iconify, drawn by resvg-py {version('resvg-py')}"


def _left_out(svgs: SvgSet, shared: set[str]) -> Iterator[str]:
    alone = sorted(svgs.drawings.keys() - shared)
    for names, what in ((alone, "drawings that not every set has"), (svgs.aliases, "aliases of drawings")):
        if names:
            more = ", ..." if len(names) > 1 else ""
            yield escaped(f"{len(names):,} {what} ({svgs.file.name}: {names[0]}{more})")


def _read(file: Path) -> SvgSet:
    """Read one set.

    Raises:
        UserError: the file cannot be read or is no set.
    """
    if file.is_dir():
        raise UserError(f"iconify:{file}: a folder; name the file of a set in it, such as {file}/json/NAME.json")
    try:
        content = json.loads(file.read_bytes())
        icons = content["icons"]
        drawings = {str(name): _document(icon, content) for name, icon in icons.items()}
        return SvgSet(
            file,
            drawings,
            3 if content.get("info", {}).get("palette", True) else 1,
            _licence(content, file),
            sorted(map(str, content.get("aliases", {}))),
        )
    except OSError as error:
        raise UserError(f"iconify:{file}: {error.strerror or error}; give the JSON file of a set") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"iconify:{file}: not a set in Iconify's format ({type(error).__name__}: {error}); give a file of the npm "
            "package @iconify/json"
        ) from error


def _document(icon: dict[str, Any], default: dict[str, Any]) -> str:
    """Return a drawing as an SVG document. Its box may be of any shape: it is drawn in the centre of a square."""
    left, top = (float(icon.get(key, default.get(key, 0))) for key in ("left", "top"))
    width, height = (float(icon.get(key, default.get(key, DEFAULT_BOX))) for key in ("width", "height"))
    box = f"{left:g} {top:g} {width:g} {height:g}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1" viewBox="{box}">{icon["body"]}</svg>'


def _licence(content: dict[str, Any], file: Path) -> str:
    """Return title, author and licence of a set, as far as it states them."""
    info = content.get("info", {})
    author, licence = info.get("author", {}), info.get("license", {})
    by = f" by {author.get('name', 'an author that it does not name')}"
    terms = licence.get("title", "not stated")
    where = f", {licence['url']}" if "url" in licence else ""
    return escaped(f"{info.get('name', file.stem)}{by}: licence {terms}{where}")


def _renderer() -> Callable[[str, int, int], Pixels]:
    """Return the function that draws an SVG document on white: uint8 [size, size], or [size, size, 3] in colour.

    Raises:
        UserError: resvg is not installed.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise UserError("iconify: the renderer resvg-py is not installed; run: pip install 'ganrun[svg]'") from error

    def draw(document: str, size: int, channels: int) -> Pixels:
        try:
            # Without the fonts of the machine, so that the pictures are the same on all.
            png = svg_to_bytes(svg_string=document, width=size, height=size, background="#fff", skip_system_fonts=True)
        except Exception as error:  # it raises ValueError, and its own panic
            raise UnreadableError(f"cannot be drawn: {error}") from error
        return np.asarray(Image.open(io.BytesIO(png)).convert("L" if channels == 1 else "RGB"))

    return draw
