"""Errors whose message a user can act on: commands print them in one line, without a traceback."""


class UserError(ValueError):
    """The user's input is wrong (config, data, credentials): exit code 2.

    The message names the field or file, its value, what is allowed and what to do.
    """


class RunError(RuntimeError):
    """The run cannot go on though its input was right (held lease, full disk, diverged): exit code 1."""


class DivergedError(RunError):
    """Training diverged; from the last checkpoint with other noise it may go well."""
