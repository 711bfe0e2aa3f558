"""Source of a Hugging Face data set on this machine: saved to a folder, a folder of its files, or in the local cache.

Columns become fields by their type: pictures, a class label, a text; all others go into .json.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ganrun.errors import RunError, UserError, escaped
from ganrun.preparation.convert_image import UnreadableError, read_shape
from ganrun.preparation.fields import Members
from ganrun.preparation.process_pool import parallel_map
from ganrun.preparation.sources import (
    IMAGE,
    Item,
    Part,
    Remarks,
    Shape,
    Shapes,
    hash_of,
    key_of,
    shuffled_parts,
)
from ganrun.storage import expand_user

IMAGES, LABELS, TEXTS = ("image", "img"), ("label", "labels"), ("text", "caption", "prompt")
"""Names of columns that are preferred where several have the type."""
CHUNK = 1024
"""Samples whose headers a task reads."""
_SAVED, _SPLITS = "state.json", "dataset_dict.json"
"""Files of a data set, and of one with several splits, that `save_to_disk` writes."""


@dataclass(frozen=True)
class HubSource:
    """Samples of a Hugging Face data set.

    Attributes:
        name: name in messages and in the index.
        data: rows whose pictures are not decoded. It pickles as the names of its files.
        pictures: columns of pictures by field; the first field is `image`.
        label: column of the class numbers; None without labels.
        text: column of the texts; None without.
        others: columns of the .json.
        classes: class names by number.
        remarks: the licence, and columns that are left out.
    """

    name: str
    data: Any
    pictures: dict[str, str]
    label: str | None
    text: str | None
    others: tuple[str, ...]
    classes: tuple[str, ...]
    remarks: Remarks
    size: None = None

    def identity(self) -> str:
        """Return a hash of columns, sizes and times of the files, and of the number of samples."""
        files = [entry["filename"] for entry in self.data.cache_files]
        versions = [(name, os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in files]
        about = (self.data.features, len(self.data), self.pictures, self.label, self.text, self.remarks)
        return hash_of(repr(entry).encode() for entry in (*about, *versions))

    old_identity = identity

    def shapes(self, workers: int) -> Shapes:
        """Read the header of every picture."""
        found: Shapes = {name: {} for name in self.pictures}
        edges = [*range(0, len(self.data), CHUNK), len(self.data)]
        for shapes in parallel_map(self._shapes, list(pairwise(edges)), workers):
            for name, of in shapes.items():
                found[name] = of | found[name]
        return found

    def parts(self, shard_samples: int | None, image_bytes: int) -> list[Part]:
        """Shuffle the samples over shards."""
        return shuffled_parts(len(self.data), shard_samples, image_bytes * len(self.pictures))

    def items(self, part: Part) -> Iterator[Item]:
        """Yield the samples of a part in order."""
        for place, number in enumerate(part.numbers):
            row = self.data[number]
            stored = {name: _stored(row[column]) for name, column in self.pictures.items()}
            image = stored.pop(IMAGE)
            fault = None if image is not None and None not in stored.values() else "a row without its picture"
            pictures = {name: each for name, each in stored.items() if each is not None}
            yield Item(key_of(part, place), self._where(number), image, self._members(row), fault, pictures)

    def _members(self, row: dict[str, Any]) -> Members:
        members: Members = {}
        if self.label is not None and row[self.label] is not None and row[self.label] >= 0:  # -1: not labelled.
            members["cls"] = str(row[self.label]).encode()
        if self.text is not None and row[self.text] is not None:
            members["txt"] = row[self.text].encode(errors="replace")
        if others := {name: row[name] for name in self.others if row[name] is not None}:
            members["json"] = json.dumps(others, sort_keys=True, ensure_ascii=False).encode(errors="replace")
        return members

    def _shapes(self, edges: tuple[int, int]) -> Shapes:
        found: Shapes = {name: {} for name in self.pictures}
        for number in range(*edges):
            row = self.data[number]
            for name, column in self.pictures.items():
                stored = _stored(row[column])
                if stored is None:
                    continue  # Reported when it is packed.
                try:
                    shape: Shape = read_shape(stored)
                except UnreadableError:
                    continue
                found[name].setdefault(shape, self._where(number))
        return found

    def _where(self, number: int) -> str:
        return f"{self.name}, row {number}"


def open_hub(path: str, limit: int | None, download: bool) -> HubSource:
    """Open a data set.

    Args:
        path: folder, or name on the hub, and a split after a comma: `org/name,test` (default: train, or the only one).
        limit: number of samples, the first; None: all.
        download: allow requests to the hub; otherwise only this machine is looked at.

    Raises:
        UserError: no such data set or split, no column of pictures, or the package `datasets` is missing.
        RunError: the download failed.
    """
    place, _, split = path.partition(",")
    where = f"hub:{place}"
    data = _split_of(_load(place, where, download), split, where)
    if not len(data):
        raise UserError(f"{where}: the split has no rows; name another: hub:{place},SPLIT")
    data = data.select(range(min(limit, len(data)))) if limit else data
    return _with_columns(data, f"{where},{data.split}" if data.split else where)


def _load(place: str, where: str, download: bool) -> Any:
    if not download:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Read when the package is imported.
    try:
        import datasets
    except ImportError as error:
        raise UserError("hub: the package datasets is not installed; run: pip install 'ganrun[hub]'") from error
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    folder = Path(expand_user(place))
    try:
        if any((folder / name).is_file() for name in (_SAVED, _SPLITS)):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.is_dir() else place)
    except Exception as error:  # Of the files, of the hub, of one of many readers.
        reason = escaped(" ".join(str(error).split()) or type(error).__name__)[:200]
        if download:
            raise RunError(f"{where}: cannot be read ({reason})") from error
        raise UserError(
            f"{where}: no data set that can be read ({reason}); give a folder, a name in the local cache, or add "
            "--download"
        ) from error


def _split_of(loaded: Any, split: str, where: str) -> Any:
    """Return one split; `train` if none is named, or the only one."""
    if not isinstance(loaded, dict):  # A Dataset. A DatasetDict is a dict.
        if split and str(loaded.split) != split:
            raise UserError(f"{where}: no split {split!r}; it was saved as one: leave the split out")
        return loaded
    name = split or ("train" if "train" in loaded or len(loaded) != 1 else next(iter(loaded)))
    if name not in loaded:
        raise UserError(f"{where}: no split {name!r}; its splits are {', '.join(loaded)}")
    return loaded[name]


def _with_columns(data: Any, name: str) -> HubSource:
    """Assign the columns of a data set to fields."""
    from datasets import ClassLabel, Image, Value

    columns = data.features
    pictures = [column for column, feature in columns.items() if isinstance(feature, Image)]
    if not pictures:
        raise UserError(f"{name}: no column of pictures, only {', '.join(columns)}; ganrun trains on pictures")
    first = _preferred(pictures, IMAGES)
    fields = {IMAGE: first}
    for column in pictures:
        if column != first:
            fields[_field(column, fields)] = column
    labels = [column for column, feature in columns.items() if isinstance(feature, ClassLabel)]
    label = _preferred(labels, LABELS)
    texts = [column for column, feature in columns.items() if isinstance(feature, Value) and feature.dtype == "string"]
    text = _preferred(texts, TEXTS)
    plain = [column for column, feature in columns.items() if _is_plain(feature) and column not in (label, text)]
    left_out = tuple(
        f"column {column}: neither pictures, numbers nor words"
        for column in columns
        if column not in (*pictures, *plain, label, text)
    )
    for column in pictures:
        data = data.cast_column(column, Image(decode=False))
    licences = tuple(line for line in (data.info.license, data.info.homepage) if line)
    numbering = f"column {label}" if label else ""
    remarks = Remarks(
        left_out=tuple(map(escaped, left_out)), numbering=numbering, licences=tuple(map(escaped, licences))
    )
    classes = tuple(map(escaped, columns[label].names)) if label else ()
    return HubSource(name, data, fields, label, text, tuple(plain), classes, remarks)


def _preferred(columns: list[str], names: tuple[str, ...]) -> Any:
    """Return the column that has one of these names, else the first; None if there is none."""
    return next((name for name in names if name in columns), columns[0] if columns else None)


def _field(column: str, taken: Collection[str]) -> str:
    """Return the name of a field for a column: lower-case letters, digits and underscores, and none that is taken."""
    name = re.sub("[^a-z0-9_]", "_", column.lower()).lstrip("_0123456789") or "picture"
    while name in taken:
        name += "_"
    return name


def _is_plain(feature: Any) -> bool:
    """Return True for numbers, words, class numbers, and lists of them, which JSON holds."""
    from datasets import ClassLabel, List, Value

    if isinstance(feature, List):
        return _is_plain(feature.feature)
    return isinstance(feature, ClassLabel) or (
        isinstance(feature, Value) and feature.dtype.startswith(("bool", "int", "uint", "float", "string"))
    )


def _stored(cell: Any) -> bytes | Path | None:
    """Return the picture of a cell that is not decoded: its bytes, or its file."""
    if not cell:
        return None
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    path = Path(cell["path"])
    return path if path.is_file() else None  # A pipe or a device may be named, too.
