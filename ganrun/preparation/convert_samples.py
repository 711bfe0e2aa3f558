"""Converts samples, and counts labels, pixel sums and skipped images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ganrun.data.captions import EMBEDDING, read_embeddings
from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import (
    EXTENSIONS,
    Picture,
    Rule,
    Stored,
    UnreadableError,
    convert,
    decode,
    read_shape,
    read_upright_size,
)
from ganrun.preparation.fields import Members
from ganrun.preparation.labels import parse_label
from ganrun.preparation.sources import Item, image_of


@dataclass
class SampleCounts:
    """Counters over converted samples.

    Attributes:
        sums: sum of pixel values per channel.
        labels: number of images by label; keys are strings, as in JSON.
        enlarged: images that were smaller than the target size.
        skipped: a line for each image that could not be read.
        members: number of samples with a member, by its extension.
        unlabelled: the first sample without a .cls.
        shapes: width, height and channels of the further pictures, by extension; empty where they differ.
        embedding: most embedded captions of a sample, and numbers of an embedding; 0: there are none.
    """

    sums: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    enlarged: int = 0
    skipped: list[str] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    unlabelled: str = ""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    embedding: list[int] = field(default_factory=lambda: [0, 0])

    def count(self, item: Item, picture: Picture, shapes: dict[str, list[int]]) -> None:
        """Add one converted sample, with the shapes of its further pictures."""
        labels = {str(parse_label(item.members["cls"], item.where)): 1} if "cls" in item.members else {}
        members = dict.fromkeys((picture.extension, *item.members), 1)
        sums: list[int] = picture.pixels.sum((0, 1), dtype=int).tolist()
        unlabelled = "" if labels else item.where
        self.add(SampleCounts(sums, labels, int(picture.enlarged), [], members, unlabelled, shapes, _embedding(item)))

    def add(self, other: "SampleCounts") -> None:
        """Add other counters."""
        self.sums = [total + new for total, new in zip(self.sums, other.sums, strict=True)]
        for mine, others in ((self.labels, other.labels), (self.members, other.members)):
            for name, number in others.items():
                mine[name] = mine.get(name, 0) + number
        for name, shape in other.shapes.items():
            self.shapes[name] = shape if self.shapes.get(name, shape) == shape else []
        self.enlarged += other.enlarged
        self.embedding = [max(pair) for pair in zip(self.embedding, other.embedding, strict=True)]
        self.skipped += other.skipped
        self.unlabelled = self.unlabelled or other.unlabelled


def _embedding(item: Item) -> list[int]:
    """Return the captions and the numbers of the embeddings of a sample.

    Raises:
        UserError: its member is something else.
    """
    if EMBEDDING not in item.members:
        return [0, 0]
    try:
        return list(read_embeddings(item.members[EMBEDDING]).shape)
    except ValueError as error:
        raise UserError(
            f"{item.where}: .{EMBEDDING} cannot be read ({error}); make it with ganrun prepare --embed"
        ) from error


def convert_all(
    items: Iterable[Item], rule: Rule, counts: SampleCounts, strict: str | None
) -> Iterator[tuple[Item, Picture]]:
    """Convert samples and yield each with its picture. Unreadable ones are skipped and recorded in `counts`.

    Args:
        items: samples.
        rule: conversion.
        counts: counters, updated in place.
        strict: advice to append to the error about an unreadable picture; None: skip it.

    Raises:
        UserError: a picture does not fit the rule, a .cls is not a class number, or with `strict` a picture is
            unreadable.
    """
    for item in items:
        try:
            picture = convert(image_of(item), rule)
            item = replace(item, members={**_convert_others(item.members, rule), **_convert_pictures(item, rule)})
            _check_extensions(item, picture)
            shapes = _shapes(item.members)
        except UnreadableError as error:
            if strict:
                raise UserError(f"{item.where}: unreadable ({error}); {strict}") from error
            counts.skipped.append(escaped(f"{item.where}: {error}"))
            continue
        except UserError as error:
            raise UserError(f"{item.where}: {error}") from error
        counts.count(item, picture, shapes)
        yield item, picture


def skip_faults(items: Iterable[Item], counts: SampleCounts) -> Iterator[Item]:
    """Yield samples. Record what only looks like one in `counts` as skipped."""
    for item in items:
        if item.fault:
            counts.skipped.append(escaped(f"{item.where}: {item.fault}"))
        else:
            yield item


def is_further(extension: str) -> bool:
    """Return True for the extension of a further picture of a sample, such as `edges.png`."""
    name, _, ending = extension.rpartition(".")
    return bool(name) and ending in EXTENSIONS


def _shapes(members: Members) -> dict[str, list[int]]:
    """Return width, height and channels of the further pictures of a sample by extension.

    Raises:
        UnreadableError: one cannot be decoded.
    """
    shapes = {}
    for extension in filter(is_further, members):
        try:
            decode(members[extension])
            shapes[extension] = list(read_shape(members[extension]))
        except UnreadableError as error:
            raise UnreadableError(f"its .{extension}: {error}") from error
    return shapes


def _convert_pictures(item: Item, rule: Rule) -> Members:
    """Convert the further pictures of a sample to members such as `source.png`.

    Raises:
        UnreadableError: one cannot be decoded, or has another size than the first.
    """
    converted: Members = {}
    for name, stored in item.pictures.items():
        where = f"its {name}{f' {escaped(str(stored))}' if isinstance(stored, Path) else ''}"
        try:
            _check_alike(image_of(item), stored)
            picture = convert(stored, replace(rule, channels=rule.further.get(name, rule.channels)))
        except (UnreadableError, UserError) as error:
            raise type(error)(f"{where}: {error}") from error
        converted[f"{name}.{picture.extension}"] = picture.data
    return converted


def _check_alike(first: Stored, stored: Stored) -> None:
    """Refuse a pair of unlike size.

    Raises:
        UnreadableError: the size of the picture is not that of the first one.
    """
    (width, height), (wanted_width, wanted_height) = read_upright_size(stored), read_upright_size(first)
    if (width, height) != (wanted_width, wanted_height):
        raise UnreadableError(f"{width}x{height} pixels, but the image has {wanted_width}x{wanted_height}")


def _convert_others(members: Members, rule: Rule) -> Members:
    """Resize further pictures of existing samples to the size of the first, if the rule does. Each keeps its channels.

    Raises:
        UnreadableError: one cannot be decoded.
        UserError: two would get the same extension.
    """
    converted: Members = {}
    for extension, content in members.items():
        if is_further(extension) and rule.resize:
            try:
                picture = convert(content, replace(rule, channels=read_shape(content)[2]))
            except UnreadableError as error:
                raise UnreadableError(f"its .{extension}: {error}") from error
            extension, content = f"{extension.rpartition('.')[0]}.{picture.extension}", picture.data
        if extension in converted:
            raise UserError(f"has two members that would be .{extension} once converted; rename or remove one")
        converted[extension] = content
    return converted


def _check_extensions(item: Item, picture: Picture) -> None:
    """Refuse a sample whose picture would overwrite another member.

    Raises:
        UserError: another member has the extension of the converted picture.
    """
    if picture.extension in item.members:
        raise UserError(f"has two members that would be .{picture.extension} once converted; rename or remove one")
