"""Converts samples and counts what was in them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ganrun.errors import UserError
from ganrun.preparation.convert_image import EXTENSIONS, Picture, Rule, UnreadableError, convert, read_shape
from ganrun.preparation.fields import Members
from ganrun.preparation.sources import Item


@dataclass
class SampleCounts:
    """Images by label number (as text, for JSON), sums of pixels [channels], images made larger, and what
    was left out."""

    sums: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    enlarged: int = 0
    skipped: list[str] = field(default_factory=list)

    def count(self, sums: list[int], labels: dict[str, int]) -> None:
        """Adds sums of pixels and numbers of images."""
        self.sums = [total + new for total, new in zip(self.sums, sums, strict=True)]
        for label, number in labels.items():
            self.labels[label] = self.labels.get(label, 0) + number

    def add(self, other: "SampleCounts") -> None:
        """Adds what another counted."""
        self.count(other.sums, other.labels)
        self.enlarged += other.enlarged
        self.skipped += other.skipped


def convert_all(
    items: Iterable[Item], rule: Rule, counts: SampleCounts, strict: str | None
) -> Iterator[tuple[Item, Picture]]:
    """Each sample with its picture, counted in `counts`; unreadable ones are left out and noted.

    Raises:
        UserError: a picture does not fit the rule, a .cls is no number, or, where `strict` says why that is
            a fault, a picture is unreadable.
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
    """Further images of a sample (`edges.png`) made as large as the first, each with its own channels."""
    converted = {}
    for extension, content in members.items():
        kind, _, ending = extension.rpartition(".")
        if kind and ending in EXTENSIONS:
            picture = convert(content, replace(rule, channels=read_shape(content)[2]))
            extension, content = f"{kind}.{picture.extension}", picture.data
        converted[extension] = content
    return converted


def _label(item: Item) -> dict[str, int]:
    """{the number in its .cls: 1}, empty without one."""
    text = item.members.get("cls", b"").strip()
    if "cls" in item.members and not text.isdigit():
        raise UserError(f"{item.where}: its .cls holds {text[:20]!r}; allowed is a whole number from 0")
    return {str(int(text)): 1} if text else {}
