"""Converts samples, and counts labels, pixel sums and skipped images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ganrun.errors import UserError
from ganrun.preparation.convert_image import EXTENSIONS, Picture, Rule, UnreadableError, convert, read_shape
from ganrun.preparation.fields import Members
from ganrun.preparation.sources import Item


@dataclass
class SampleCounts:
    """Counters over converted samples.

    Attributes:
        sums: sum of pixel values per channel.
        labels: number of images by label; keys are strings, as in JSON.
        enlarged: images that were smaller than the target size.
        skipped: a line for each image that could not be read.
    """

    sums: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    enlarged: int = 0
    skipped: list[str] = field(default_factory=list)

    def count(self, sums: list[int], labels: dict[str, int]) -> None:
        """Add pixel sums per channel and numbers of images by label."""
        self.sums = [total + new for total, new in zip(self.sums, sums, strict=True)]
        for label, number in labels.items():
            self.labels[label] = self.labels.get(label, 0) + number

    def add(self, other: "SampleCounts") -> None:
        """Add other counters."""
        self.count(other.sums, other.labels)
        self.enlarged += other.enlarged
        self.skipped += other.skipped


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
        UserError: a picture does not fit the rule, a .cls is not a number, or with `strict` a picture is unreadable.
    """
    for item in items:
        try:
            if item.image is None:
                raise UnreadableError("the sample has no image")
            picture = convert(item.image, rule)
            item = replace(item, members=_convert_others(item.members, rule)) if rule.resize else item
        except UnreadableError as error:
            if strict:
                raise UserError(f"{item.where}: unreadable ({error}); {strict}") from error
            counts.skipped.append(f"{item.where}: {error}")
            continue
        except UserError as error:
            raise UserError(f"{item.where}: {error}") from error
        counts.count(picture.pixels.sum((0, 1), dtype=int).tolist(), _label(item))
        counts.enlarged += picture.enlarged
        yield item, picture


def _convert_others(members: Members, rule: Rule) -> Members:
    """Resize further images of a sample, such as `edges.png`, to the size of the first. Each keeps its channels."""
    converted = {}
    for extension, content in members.items():
        kind, _, ending = extension.rpartition(".")
        if kind and ending in EXTENSIONS:
            picture = convert(content, replace(rule, channels=read_shape(content)[2]))
            extension, content = f"{kind}.{picture.extension}", picture.data
        converted[extension] = content
    return converted


def _label(item: Item) -> dict[str, int]:
    """Return {label: 1} with the number in the sample's .cls; empty without one."""
    text = item.members.get("cls", b"").strip()
    if "cls" in item.members and not text.isdigit():
        raise UserError(f"{item.where}: its .cls is {text[:20]!r}; it must be an integer from 0")
    return {str(int(text)): 1} if text else {}
