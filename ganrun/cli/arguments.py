"""Types of command-line arguments, for argparse."""

import argparse
import re

_FIELD = re.compile("[a-z][a-z0-9_]*")


def positive(text: str) -> int:
    """Parse an integer from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 1")
    return int(text)


def size(text: str) -> int:
    """Parse a number of pixels a side."""
    if not text.isdigit() or not 4 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 4 to 4096")
    return int(text)


def share(text: str) -> float:
    """Parse a share above 0, at most 1."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give a share above 0, at most 1, such as 0.5")
    return found


def names(text: str) -> tuple[str, ...]:
    """Parse names of fields, one of them `image`."""
    found = tuple(text.split(","))
    if "image" not in found or len(set(found)) < len(found) or not all(map(_FIELD.fullmatch, found)):
        raise argparse.ArgumentTypeError(
            f"{text!r}; give different names of lower-case letters, digits and _ with commas between them, one of them "
            "image"
        )
    return found
