"""Labels of samples: how names become class numbers, and which numbers are allowed."""

import re
from collections.abc import Iterable

from ganrun.errors import UserError

CLASSES = 1_000_000
"""Most classes of a data set. Larger labels are identifiers, not classes, and the index names every class."""
_PLAIN = re.compile("0|-?[1-9][0-9]*", re.ASCII)


def in_order(names: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Sort class names: by number if all are digits, else by name. Return them and "numeric" or "alphabetical"."""
    names = set(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (name.lstrip("0").zfill(max(map(len, names))), name))), "numeric"
    return tuple(sorted(names)), "alphabetical"


def is_number(label: str) -> bool:
    """Return True for an integer as Python prints it. 01 and +1 are names."""
    return bool(_PLAIN.fullmatch(label))


def parse_label(content: bytes, where: str) -> int:
    """Return the class number in a .cls.

    Raises:
        UserError: it is not an integer from 0 to CLASSES - 1.
    """
    text = content.strip()
    digits = text.lstrip(b"0")
    if not text.isdigit() or len(digits) > 9 or int(digits or b"0") >= CLASSES:
        raise UserError(
            f"{where}: its .cls is {text[:20]!r}{'...' if len(text) > 20 else ''}; it must be a class number, an "
            f"integer from 0 to {CLASSES - 1}; number the classes from 0 up"
        )
    return int(digits or b"0")


def check_largest(largest: int, labels: int, where: str) -> None:
    """Refuse labels far larger than their number, which are identifiers: the index names every class.

    Args:
        largest: largest label.
        labels: number of different labels.
        where: file or source, for the message.

    Raises:
        UserError: the largest label is above 100 times their number + 1,000, or there would be too many classes.
    """
    if largest > 100 * labels + 1000 or largest >= CLASSES:
        raise UserError(f"{where}: label {largest}, but only {labels} labels; number classes from 0 up")
