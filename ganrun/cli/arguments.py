"""Types of command-line arguments, for argparse."""

import argparse
import ipaddress
import re

from ganrun.errors import UserError
from ganrun.telemetry.protocol import HOST, Address

_FIELD = re.compile("[a-z][a-z0-9_]*")


def positive(text: str) -> int:
    """Parse an integer from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give an integer from 1")
    return int(text)


def not_negative(text: str) -> float:
    """Parse a finite number from 0."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 0")
    return found


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


def listen_address(text: str, port: int) -> Address:
    """Parse ADDR:PORT of --listen, such as that of `port` on this machine.

    Raises:
        UserError: it is none.
    """
    host, _, number = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]").replace("localhost", HOST)
    try:
        ipaddress.ip_address(host)
        if not 0 <= int(number) < 2**16:
            raise ValueError
    except ValueError:
        raise UserError(f"--listen: {text!r} is not ADDR:PORT, such as {HOST}:{port} or 0.0.0.0:{port}") from None
    return Address(host, int(number))
