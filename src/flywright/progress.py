"""How long work tells of itself: a callable handed in from the top floor.

A room calls `tick(done, total, note)`; the recipe draws a bar or prints plain lines from it.
"""

from collections.abc import Callable

ALARM = "alarm: "  # a note that begins so is told at once, on a line of its own

Tick = Callable[[int, int, str], None]


def silent(_done: int, _total: int, _note: str = "") -> None:
    """The tick that says nothing."""


class Announce:
    """Tells of steps: begun, skipped, finished. The command line draws bars from it."""

    def begin(self, name: str) -> Tick:
        """A step begins; the tick is its progress."""
        return silent

    def skipped(self, name: str) -> None:
        """A step was done before."""

    def finished(self, name: str, seconds: float) -> None:
        """A step is done."""
