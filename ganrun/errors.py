"""Errors that a user can act on. Commands print the message as one line, without a traceback."""


class UserError(ValueError):
    """Invalid input (config, data, credentials): exit code 2.

    The message names the field or file, its value, the allowed values and the fix.
    """


class RunError(RuntimeError):
    """Failure of a run with valid input (lease held by another process, disk full, diverged): exit code 1."""


class DivergedError(RunError):
    """Training diverged. A rollback to the last checkpoint, with other noise, may recover it."""
