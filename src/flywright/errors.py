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


class PhaseEnds(FlywrightError):  # noqa: N818 - not an error: another size of mesh goes on
    """The mesh's ramp wants another number of ranks; the state is saved. Exit status 0."""

    exit_status = 0

    def __init__(self, step: int, samples: int, dp: int):
        line = f"step {step}: after {samples} samples the ramp goes on with dp {dp}"
        super().__init__(f"{line}: start the same command on as many ranks")


class Preempted(FlywrightError):  # noqa: N818 - not an error: work goes on elsewhere
    """The machine was wanted back; the state is saved. Exit status 75: try again later."""

    exit_status = 75

    def __init__(self, step: int):
        super().__init__(f"preempted at step {step}; the same command goes on from there")
