"""What every command shares: its exit codes and how its faults are printed."""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable

from ganrun.errors import RunError, UserError

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def parser(verb: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Return the parser of `ganrun VERB`, whose help ends with examples."""
    _escape_what_cannot_be_encoded()
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"ganrun {verb}", description=description, epilog=examples, formatter_class=raw)


def run(body: Callable[[], int]) -> int:
    """Runs a command's body and turns what it raises into an exit code and a message on stderr.

    A fault that the user or the operator can mend is its message alone; anything else is ours, with its
    traceback.
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
        # The reader of our output left (`| head`): nothing more can be said to it, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None or error.strerror is None:  # Of a socket or a pipe: no place that a user named.
            traceback.print_exc()
            return FAILED
        print(f"ganrun: {error.filename}: {error.strerror}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, PermissionError | FileNotFoundError) else FAILED
    except Exception:
        traceback.print_exc()
        return FAILED


def _escape_what_cannot_be_encoded() -> None:
    """Have a character that the terminal's encoding lacks printed as an escape, in place of a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
