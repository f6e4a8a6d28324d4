"""Errors meant for the person who reads them: what was wrong, where, and what to do.

A `UserError` carries one line and an exit status; the command line prints the line, no traceback.
"""


class FlywrightError(Exception):
    """Work failed for a reason we can name. Exit status 1."""

    exit_status = 1


class UserError(FlywrightError):
    """Bad usage or bad input: the reader can mend it. Exit status 2."""

    exit_status = 2


class GuardError(FlywrightError):
    """Training refuses to go on, because going on would be silently wrong. Exit status 1."""
