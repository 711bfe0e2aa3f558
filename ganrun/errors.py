"""Errors that a user can act on. Commands print the message as one line, without a traceback."""

import unicodedata

_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, surrogates, line and paragraph separators."""

PROGRAM_FAULTS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)
"""Exceptions of bugs in ganrun or run.imports, after which a restart would fail again. They do not occur when a
machine, a worker or a connection dies. (A ValueError or RuntimeError may be either.)"""


class UserError(ValueError):
    """Invalid input (config, data, credentials): exit code 2.

    The message names the field or file, its value, the allowed values and the fix.
    """


class RunError(RuntimeError):
    """Failure of a run with valid input (lease held by another process, disk full, diverged): exit code 1."""


class DivergedError(RunError):
    """Training diverged. A rollback to the last checkpoint, with other noise, may recover it."""


def escaped(text: str) -> str:
    """Return a name from outside as one line that UTF-8 can encode.

    Control characters, and bytes of a file name that are not UTF-8, become escapes such as `\\x0a` and `\\xe9`.
    """
    if text.isprintable():
        return text
    return "".join(_escape(sign) if unicodedata.category(sign) in _ESCAPED else sign for sign in text)


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, such as `1 image` or `1,000 images`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _escape(sign: str) -> str:
    byte = ord(sign) - 0xDC00  # surrogateescape (PEP 383) keeps byte B of a file name as U+DC00 + B.
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else sign.encode("unicode_escape").decode()
