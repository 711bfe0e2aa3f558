"""Argument parser, exit codes and error output of all commands."""

import argparse
import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import ganrun
from ganrun.cli import completion
from ganrun.errors import RunError, UserError, escaped

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
RED, GREEN, YELLOW = 31, 32, 33
NAMED_WRONGLY = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.EINVAL),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
}
"""No right, no such file, no such bucket, no valid name of a bucket or of a file."""


def parser(verb: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Return the parser of `ganrun VERB`, whose help ends with examples."""
    _escape_what_cannot_be_encoded()
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog=f"ganrun {verb}", description=description, epilog=examples, formatter_class=raw)
    add_output_options(made)
    return made


def add_output_options(parser: argparse.ArgumentParser, **kept: Any) -> None:
    """Add --quiet and --verbose. `kept=argparse.SUPPRESS` as default leaves what the parser above has set."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-q", "--quiet", action="store_true", help="say nothing but results and errors", **kept)
    text = "say more: logs of Ray, requests to a bucket, tracebacks"
    either.add_argument("-v", "--verbose", action="store_true", help=text, **kept)


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None, intermixed: bool = False) -> argparse.Namespace:
    """Parse the arguments of a command, or complete them for a shell, which ends the process.

    Args:
        parser: of the command.
        arguments: None: `sys.argv`.
        intermixed: allow options between positional arguments.
    """
    if completion.is_asked():
        completion.complete(parser)
    return parser.parse_intermixed_args(arguments) if intermixed else parser.parse_args(arguments)


def run(options: argparse.Namespace, body: Callable[[argparse.Namespace], int]) -> int:
    """Run the body of a command. Print errors to stderr and return the exit code.

    Errors that the user or operator can fix are printed as one line. Any other is a bug and gets a traceback.

    Args:
        options: of the command, with `quiet` and `verbose`.
        body: called with them.

    Returns:
        The result of `body`; 2 for invalid input, 130 after Ctrl-C, 1 for all other failures.
    """
    try:
        with _as_loud_as(options):
            return body(options)
    except (UserError, RunError) as error:
        if options.verbose:
            traceback.print_exc()
        print_error(str(error))
        return WRONG_INPUT if isinstance(error, UserError) else FAILED
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`| head`). Without this Python fails again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None or error.strerror is None:  # A socket or pipe, not a path that the user gave.
            traceback.print_exc()
            return FAILED
        print_error(f"{escaped(str(error.filename))}: {error.strerror}")
        return WRONG_INPUT if error.errno in NAMED_WRONGLY else FAILED
    except Exception:
        traceback.print_exc()
        return FAILED


def print_error(text: str) -> None:
    """Print the line of an error to stderr."""
    print(f"{coloured('ganrun:', RED, sys.stderr)} {text}", file=sys.stderr)


def coloured(text: str, colour: int, stream: TextIO) -> str:
    """Return a text in a colour of ANSI where there are colours, else as it is."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colours(stream) else text


def has_colours(stream: TextIO) -> bool:
    """Return True for a terminal, but not under NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def _as_loud_as(options: argparse.Namespace) -> Iterator[None]:
    """Print nothing to stderr with --quiet, and what loggers say in detail with --verbose. Errors are printed after."""
    with contextlib.ExitStack() as stack:
        if options.quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", errors="replace"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        if options.verbose:
            logger, handler = logging.getLogger("ganrun"), logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.DEBUG)
            logger.debug("ganrun %s, Python %s, process %d", ganrun.__version__, sys.version.split()[0], os.getpid())
        yield


def _escape_what_cannot_be_encoded() -> None:
    """Have a character that the terminal's encoding lacks printed as an escape, in place of a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
