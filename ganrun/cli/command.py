"""Argument parser, exit codes and error output of all commands."""

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable

from ganrun.errors import RunError, UserError, escaped

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
NAMED_WRONGLY = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.EINVAL),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
}
"""No right, no such file, no such bucket, no valid name of a bucket or of a file."""


def parser(verb: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Return the parser of `ganrun VERB`, whose help ends with examples."""
    _escape_what_cannot_be_encoded()
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"ganrun {verb}", description=description, epilog=examples, formatter_class=raw)


def run(body: Callable[[], int]) -> int:
    """Run the body of a command. Print errors to stderr and return the exit code.

    Errors that the user or operator can fix are printed as one line. Any other is a bug and gets a traceback.

    Returns:
        The result of `body`; 2 for invalid input, 130 after Ctrl-C, 1 for all other failures.
    """
    try:
        return body()
    except UserError as error:
        print(f"ganrun: {error}", file=sys.stderr)
        return WRONG_INPUT
    except RunError as error:
        print(f"ganrun: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ganrun: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`| head`). Without this Python fails again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None or error.strerror is None:  # A socket or pipe, not a path that the user gave.
            traceback.print_exc()
            return FAILED
        print(f"ganrun: {escaped(str(error.filename))}: {error.strerror}", file=sys.stderr)
        return WRONG_INPUT if error.errno in NAMED_WRONGLY else FAILED
    except Exception:
        traceback.print_exc()
        return FAILED


def _escape_what_cannot_be_encoded() -> None:
    """Have a character that the terminal's encoding lacks printed as an escape, in place of a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
