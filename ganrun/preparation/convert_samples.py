"""Converts samples, and counts labels, pixel sums and skipped images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ganrun.errors import UserError, escaped
from ganrun.preparation.convert_image import EXTENSIONS, Picture, Rule, UnreadableError, convert, read_shape
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
    """

    sums: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    enlarged: int = 0
    skipped: list[str] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    unlabelled: str = ""

    def count(self, item: Item, picture: Picture) -> None:
        """Add one converted sample."""
        labels = {str(parse_label(item.members["cls"], item.where)): 1} if "cls" in item.members else {}
        members = dict.fromkeys((picture.extension, *item.members), 1)
        sums: list[int] = picture.pixels.sum((0, 1), dtype=int).tolist()
        unlabelled = "" if labels else item.where
        self.add(SampleCounts(sums, labels, int(picture.enlarged), [], members, unlabelled))

    def add(self, other: "SampleCounts") -> None:
        """Add other counters."""
        self.sums = [total + new for total, new in zip(self.sums, other.sums, strict=True)]
        for mine, others in ((self.labels, other.labels), (self.members, other.members)):
            for name, number in others.items():
                mine[name] = mine.get(name, 0) + number
        self.enlarged += other.enlarged
        self.skipped += other.skipped
        self.unlabelled = self.unlabelled or other.unlabelled


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
            item = replace(item, members=_convert_others(item.members, rule)) if rule.resize else item
            _check_extensions(item, picture)
        except UnreadableError as error:
            if strict:
                raise UserError(f"{item.where}: unreadable ({error}); {strict}") from error
            counts.skipped.append(escaped(f"{item.where}: {error}"))
            continue
        except UserError as error:
            raise UserError(f"{item.where}: {error}") from error
        counts.count(item, picture)
        yield item, picture


def skip_faults(items: Iterable[Item], counts: SampleCounts) -> Iterator[Item]:
    """Yield samples. Record what only looks like one in `counts` as skipped."""
    for item in items:
        if item.fault:
            counts.skipped.append(escaped(f"{item.where}: {item.fault}"))
        else:
            yield item


def _convert_others(members: Members, rule: Rule) -> Members:
    """Resize further images of a sample, such as `edges.png`, to the size of the first. Each keeps its channels.

    Raises:
        UnreadableError: one cannot be decoded, or two would get the same extension.
    """
    converted: Members = {}
    for extension, content in members.items():
        kind, _, ending = extension.rpartition(".")
        if kind and ending in EXTENSIONS:
            try:
                picture = convert(content, replace(rule, channels=read_shape(content)[2]))
            except UnreadableError as error:
                raise UnreadableError(f"its .{extension}: {error}") from error
            extension, content = f"{kind}.{picture.extension}", picture.data
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
